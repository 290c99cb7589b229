//! File systems and the kernel's own kinds of file.
