//! What every platform must do, as tests that know only the traits.
//!
//! A platform's `tests/suite.rs` is one line: `platform::platform_suite!(factory);` with a function that makes a fresh
//! platform. Each case becomes a `#[test]`. Cases own their platform, so they may run side by side.
#![allow(missing_docs, reason = "cases are named by what they check")]
#![allow(clippy::missing_panics_doc, reason = "tests panic to fail")]

pub mod asm;
pub mod changes;
pub mod exceptions;
pub mod faults;
pub mod files;
pub mod fpu;
pub mod gates;
pub mod kicks;
pub mod lab;
pub mod pkeys;
pub mod second_cpu;
pub mod spaces;
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
            second_cpu: [remap, unmap, protect, third_thread],
            exceptions: [breakpoint, icebp, invalid_opcode, divide, privileged, non_canonical, single_step,
                trap_flag_set_by_guest, floating_point, harmless_instructions],
            gates: [int_0x80, sysenter, compat_segment, beyond_user_end, kernel_segment_base, hostile_registers],
            fpu: [kept_across_calls, alternating_tasks, moved_between_cpus, initial_state, set_by_kernel],
            kicks: [before_run, while_spinning, racing_entry],
            spaces: [made_and_dropped, dropped_elsewhere, ten_thousand_ops, more_mappings_than_the_host_allows],
            files: [donated, shrunken, image],
            pkeys: [forbidden_by_key],
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
