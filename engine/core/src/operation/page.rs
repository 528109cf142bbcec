//! Paging as the cloud has it: a number from 1 and a size, and the total in every answer.

use crate::error::{Error, ErrorKind, Limit, Result};
use crate::limit;

/// A page of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// From 1.
    pub number: u32,
    /// Rows, 1 to 100.
    pub size: u32,
}

impl PageRequest {
    /// Checks what the caller asked for; by default the first page of ten.
    ///
    /// # Errors
    /// `InvalidParameter` for a number or size of zero, `LimitExceeded` for a size over 100.
    pub fn new(number: Option<u32>, size: Option<u32>) -> Result<Self> {
        Self::with_default(number, size, 10)
    }

    /// The same; by default the first page of `rows`.
    ///
    /// # Errors
    /// As of [`new`](Self::new).
    pub fn with_default(number: Option<u32>, size: Option<u32>, rows: u32) -> Result<Self> {
        let page = Self { number: number.unwrap_or(1), size: size.unwrap_or(rows) };
        if page.number == 0 {
            return Err(Error::new(ErrorKind::InvalidParameter, "PageNumber is counted from 1"));
        }
        if page.size == 0 {
            return Err(Error::new(ErrorKind::InvalidParameter, "PageSize must be at least 1"));
        }
        if page.size > limit::PAGE_SIZE {
            return Err(Error::new(
                ErrorKind::LimitExceeded(Limit::PageSize),
                format!("PageSize of {} exceeds the limit of {}", page.size, limit::PAGE_SIZE),
            ));
        }
        Ok(page)
    }

    /// Returns the rows before this page.
    pub fn skip(self) -> usize {
        (self.number as usize - 1).saturating_mul(self.size as usize)
    }
}
