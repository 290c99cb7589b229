//! The line discipline, typed at.

use std::sync::{Arc, Weak};

use abi::Errno;

use crate::fs::tty::state::{Effects, packet};
use crate::fs::tty::termios::{cc, flag};
use crate::fs::tty::{SlaveFile, Tty};
use crate::vfs::{IoSink, IoSource};

fn pty() -> Arc<Tty> {
    let tty = Tty::new(0, Weak::new(), Weak::new());
    tty.state.lock().locked = false;
    tty
}

fn type_in(tty: &Tty, text: &[u8]) {
    assert_eq!(tty.type_in(&mut IoSource::kernel(text)), Ok(text.len()));
}

fn shown(tty: &Tty) -> Vec<u8> {
    let mut out = vec![0; 65536];
    let n = tty.read_master(&mut IoSink::kernel(&mut out)).unwrap_or(0);
    out.truncate(n);
    out
}

fn read(tty: &Tty) -> Option<Vec<u8>> {
    let mut out = vec![0; 65536];
    let mut state = tty.state.lock();
    if !state.readable(false) {
        return None;
    }
    let n = state.read(&mut IoSink::kernel(&mut out), &mut Effects::default()).unwrap_or(0);
    out.truncate(n);
    Some(out)
}

fn change(tty: &Tty, change: impl FnOnce(&mut super::termios::Termios)) {
    let mut termios = tty.state.lock().termios;
    change(&mut termios);
    tty.with(|state, fx| state.set_termios(&termios, fx));
}

#[test]
fn a_line_is_edited_and_echoed() {
    let tty = pty();
    type_in(&tty, b"ab\x7fc d\x17e\x01\x16\x03\n");
    assert_eq!(shown(&tty), b"ab\x08 \x08c d\x08 \x08e^A^\x08^C\r\n".to_vec());
    assert_eq!(read(&tty), Some(b"ac e\x01\x03\n".to_vec()));
    assert_eq!(read(&tty), None);
}

#[test]
fn kill_erases_tabs_and_control_characters_by_column() {
    let tty = pty();
    type_in(&tty, b"a\tb\x01\x15x\r");
    let erased = [b"\x08 \x08".repeat(3), b"\x08".repeat(7), b"\x08 \x08".to_vec()].concat();
    assert_eq!(shown(&tty), [b"a\tb^A".as_slice(), &erased, b"x\r\n"].concat());
    assert_eq!(read(&tty), Some(b"x\n".to_vec()));
}

#[test]
fn utf8_is_erased_by_character() {
    let tty = pty();
    change(&tty, |t| t.iflag |= flag::IUTF8);
    type_in(&tty, "aé€\x7f\x7f\n".as_bytes());
    assert_eq!(read(&tty), Some(b"a\n".to_vec()));
}

#[test]
fn end_of_file_ends_a_read() {
    let tty = pty();
    type_in(&tty, b"ab\x04\x04");
    assert_eq!((read(&tty), read(&tty), read(&tty)), (Some(b"ab".to_vec()), Some(Vec::new()), None));
}

#[test]
fn raw_mode_gives_all_at_once() {
    let tty = pty();
    type_in(&tty, b"pending");
    assert_eq!(read(&tty), None);
    change(&tty, |t| t.lflag &= !(flag::ICANON | flag::ECHO | flag::ISIG));
    assert_eq!(read(&tty), Some(b"pending".to_vec()));
    type_in(&tty, b"\x03\x04");
    assert_eq!(read(&tty), Some(b"\x03\x04".to_vec()));
    change(&tty, |t| t.cc[cc::VMIN] = 3);
    type_in(&tty, b"xy");
    let state = tty.state.lock();
    assert!(state.readable(false) && !state.readable(true));
}

#[test]
fn signal_keys_flush_and_signal() {
    let tty = pty();
    let mut fx = Effects::default();
    let mut state = tty.state.lock();
    state.receive(b"half a line\x03\x1a", &mut fx);
    assert_eq!(fx.signals, [libc::SIGINT, libc::SIGTSTP]);
    assert_eq!(state.input.len(), 0);
    drop(state);
    assert_eq!(shown(&tty), b"half a line^C^Z");
}

#[test]
fn stopped_output_waits() {
    let tty = pty();
    type_in(&tty, b"\x13");
    assert_eq!(tty.write_slave(&mut IoSource::kernel(b"x")), Err(Errno::EAGAIN));
    type_in(&tty, b"\x11");
    assert_eq!(tty.write_slave(&mut IoSource::kernel(b"x\n")), Ok(2));
    assert_eq!(shown(&tty), b"x\r\n");
}

#[test]
fn packet_mode_tells_of_changes() {
    let tty = pty();
    tty.state.lock().packet = true;
    change(&tty, |t| t.iflag &= !flag::IXON);
    assert_eq!(shown(&tty), [packet::NOSTOP]);
    assert_eq!(tty.write_slave(&mut IoSource::kernel(b"hi")), Ok(2));
    assert_eq!(shown(&tty), b"\0hi");
}

#[test]
fn a_full_queue_keeps_its_newline() {
    let tty = pty();
    change(&tty, |t| t.lflag &= !flag::ECHO);
    type_in(&tty, &[b'x'; 5000]);
    type_in(&tty, b"\n");
    assert_eq!(tty.type_in(&mut IoSource::kernel(b"y")), Err(Errno::EAGAIN));
    let line = read(&tty).unwrap_or_default();
    assert_eq!((line.len(), line.last()), (4096, Some(&b'\n')));
}

#[test]
fn closing_sides() {
    let tty = pty();
    let slave = SlaveFile::open(&tty, false).map_err(|e| e.name());
    assert!(slave.is_ok());
    assert_eq!(tty.read_master(&mut IoSink::kernel(&mut [0])), Err(Errno::EAGAIN));
    drop(slave);
    assert_eq!(tty.read_master(&mut IoSink::kernel(&mut [0])), Err(Errno::EIO));
    tty.master_closed();
    assert_eq!(SlaveFile::open(&tty, true).map(|_| ()), Err(Errno::EIO));
}
