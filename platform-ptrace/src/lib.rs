//! The platform that runs guest code in stub processes under `PTRACE_SYSEMU`. See README.md for the whole picture.
#![allow(unsafe_code)]

mod child;
mod cpu;
mod decode;
mod files;
mod filter;
mod fpu;
mod kick;
mod layout;
mod master;
mod platform_impl;
mod rules;
mod space;
mod store;
mod stub;
mod sys;
mod view;

pub use platform_impl::PtracePlatform;
