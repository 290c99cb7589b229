//! Containers as the sentry keeps them, driven through its control interface: a real kernel in this process, without
//! the walls, on each platform.

#[path = "../common/mod.rs"]
mod common;
mod gofer;
mod life;
mod limits;
mod sandbox;
mod sharing;
mod tree;
