//! A terminal for the command under test.
