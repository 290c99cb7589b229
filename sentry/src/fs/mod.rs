//! File systems and the kernel's own kinds of file.

pub mod anon;
pub mod cgroup;
pub mod dev;
pub mod epoll;
pub mod eventfd;
pub mod gofer;
pub mod gone;
pub mod host;
mod host_gate;
pub mod inotify;
pub mod pipe;
pub mod proc;
pub mod pseudo;
pub mod rofs;
pub mod signalfd;
pub mod sys;
pub mod timerfd;
pub mod tmpfs;
pub mod tty;
