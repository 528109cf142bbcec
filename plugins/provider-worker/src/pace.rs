//! How many items one message carries: few enough that they are done long before the deadline, which is meant for a call that hangs
//! and not for a device that is slow.

use std::time::Duration;

/// Items of the first message, when nothing is known of the device.
const FIRST_ITEMS: usize = 8;
/// The part of the deadline that a message may take.
const SHARE: u32 = 4;

/// What is known of a session's speed.
#[derive(Default)]
pub(crate) struct Pace {
    per_item: Option<Duration>,
}

impl Pace {
    /// Returns how many items to send at once.
    pub(crate) fn items(&self, timeout: Duration) -> usize {
        match self.per_item {
            None => FIRST_ITEMS,
            Some(per_item) => {
                let items = (timeout / SHARE).as_nanos() / per_item.as_nanos().max(1);
                usize::try_from(items).unwrap_or(usize::MAX).max(1)
            }
        }
    }

    /// Notes how long some items took. A slower device is believed at once, a faster one by and by.
    pub(crate) fn took(&mut self, items: usize, elapsed: Duration) {
        let Ok(items) = u32::try_from(items.max(1)) else { return };
        let now = elapsed / items;
        self.per_item = Some(self.per_item.map_or(now, |before| now.max((3 * before + now) / 4)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[test]
    fn a_slow_device_gets_as_many_items_as_it_does_in_a_part_of_the_time() {
        let mut pace = Pace::default();
        assert_eq!(pace.items(TIMEOUT), FIRST_ITEMS);
        pace.took(8, Duration::from_secs(4));
        assert_eq!(pace.items(TIMEOUT), 5);
        pace.took(1, Duration::from_secs(9));
        assert_eq!(pace.items(TIMEOUT), 1);
    }

    #[test]
    fn a_fast_device_is_not_held_up_and_one_that_stumbled_recovers() {
        let mut pace = Pace::default();
        pace.took(8, Duration::from_micros(8));
        assert!(pace.items(TIMEOUT) > 1_000_000);
        pace.took(1, Duration::from_secs(1));
        assert_eq!(pace.items(TIMEOUT), 2);
        (0..50).for_each(|_| pace.took(100, Duration::from_micros(100)));
        assert!(pace.items(TIMEOUT) > 1_000_000, "{}", pace.items(TIMEOUT));
    }
}
