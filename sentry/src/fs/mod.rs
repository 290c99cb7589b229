//! File systems and the kernel's own kinds of file.

pub mod anon;
pub mod epoll;
pub mod eventfd;
pub mod host;
pub mod pipe;
pub mod timerfd;
