//! See the package description.
#![allow(unsafe_code)]
