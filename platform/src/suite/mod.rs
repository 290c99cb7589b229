//! What every platform must do, as tests that know only the traits.
//!
//! A platform's `tests/suite.rs` is one line: `platform::platform_suite!(factory);` with a function that makes a fresh
//! platform. Each case becomes a `#[test]`. Cases own their platform, so they may run side by side.
#![allow(missing_docs, reason = "cases are named by what they check")]
#![allow(clippy::missing_panics_doc, reason = "tests panic to fail")]

pub mod asm;
pub mod changes;
pub mod faults;
pub mod lab;
pub mod syscalls;

pub use lab::{Factory, Lab};

/// Declares one `#[test]` for each case, on platforms that `$factory` makes.
#[macro_export]
macro_rules! platform_suite {
    ($factory:path) => {
        $crate::platform_suite_cases! { $factory;
            syscalls: [round_trip, registers_survive, x32_number_passes, segment_bases, flags_survive],
            faults: [read, write, write_to_read_only, exec, exec_of_data, resume_after_map, null_page],
            changes: [map_read_change_read, two_spaces],
        }
    };
}

/// The expansion of [`platform_suite!`].
#[doc(hidden)]
#[macro_export]
macro_rules! platform_suite_cases {
    ($factory:path; $($module:ident: [$($case:ident),* $(,)?],)*) => {
        $(mod $module {
            use super::*;
            $(#[test]
            fn $case() {
                $crate::suite::$module::$case(&$crate::suite::Lab::new($factory));
            })*
        })*
    };
}
