//! What the parsers of `keymill batch` touch of the rest of the program: plain data, without the command line and the network
//! that come with the real ones.

/// Which way the cells go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Encrypt,
    Decrypt,
    ReEncrypt,
}

pub(super) mod args {
    use std::path::{Path, PathBuf};

    #[derive(Clone, Debug)]
    #[allow(dead_code, reason = "the targets read no file")]
    pub(in super::super) enum Place {
        Standard,
        File(PathBuf),
    }

    impl Place {
        pub(in super::super) fn path(&self) -> &Path {
            match self {
                Place::Standard => Path::new("-"),
                Place::File(path) => path,
            }
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in super::super) enum Format {
        Csv,
        Ndjson,
    }
}

pub(super) mod plan {
    use super::super::context::ContextPlan;
    use super::Direction;
    use super::args::{Format, Place};

    #[derive(Clone, Debug)]
    pub(in super::super) struct Plan {
        pub(in super::super) direction: Direction,
        pub(in super::super) input: Place,
        pub(in super::super) format: Format,
        pub(in super::super) selection: Vec<String>,
        pub(in super::super) context: ContextPlan,
        pub(in super::super) header: bool,
        pub(in super::super) delimiter: u8,
        pub(in super::super) allow_reencrypt: bool,
        pub(in super::super) skip_plain: bool,
        pub(in super::super) keep_empty: bool,
        pub(in super::super) ignore_missing: bool,
        pub(in super::super) batch_items: usize,
        pub(in super::super) batch_bytes: usize,
    }
}

pub(super) mod checkpoint {
    use std::fs::File;
    use std::io;

    #[derive(Clone, Debug)]
    pub(in super::super) struct Identity {
        pub(in super::super) bytes: u64,
    }

    impl Identity {
        pub(in super::super) fn of(file: &mut File) -> io::Result<Option<Self>> {
            Ok(Some(Self { bytes: file.metadata()?.len() }))
        }
    }

    #[derive(Clone, Debug)]
    pub(in super::super) struct Checkpoint {
        pub(in super::super) input_offset: u64,
        pub(in super::super) rows: u64,
    }
}

pub(super) mod seal {
    use std::fmt;

    #[derive(Clone, Debug)]
    pub(in super::super) struct SealError;

    impl fmt::Display for SealError {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("no server is asked here")
        }
    }
}
