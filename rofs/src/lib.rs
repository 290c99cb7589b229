//! See the package description.
#![deny(unsafe_code)]
