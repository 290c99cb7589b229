//! A real containerd that runs containers with this binary: through its own shim for runc (`ctr run --runc-binary`), and through
//! ours (`ctr run --runtime io.containerd.nanovisor.v1`).

#[path = "../common/mod.rs"]
mod common;
mod daemon;
mod shim;
mod stories;
