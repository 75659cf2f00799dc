//! Reports of rehearsals: all forms say the same, and nothing that stands in them can break out of them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

mod reports {
    mod agreement;
    mod data;
    pub mod example;
    mod files;
    mod hostile;
    mod junit;
    mod page;
}
