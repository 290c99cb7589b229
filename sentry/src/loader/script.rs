//! `#!` scripts (`fs/binfmt_script.c`).

use abi::Errno;

/// The first line of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The interpreter's path.
    pub interpreter: Vec<u8>,
    /// Everything else on the line, as one argument.
    pub argument: Option<Vec<u8>>,
}

fn is_blank(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

/// Parses the head of a file; `None` where it does not start with `#!`.
///
/// # Errors
/// `ENOEXEC` where the line names no interpreter, or its name might be cut off.
pub fn parse(head: &[u8]) -> Result<Option<Script>, Errno> {
    let Some(rest) = head.strip_prefix(b"#!") else { return Ok(None) };
    let line = match rest.iter().position(|b| *b == b'\n') {
        Some(end) => &rest[..end],
        None => {
            // Without the line's end in sight, the interpreter's name must end in sight.
            let text = rest.iter().position(|b| !is_blank(*b)).map_or(&rest[..0], |at| &rest[at..]);
            if text.is_empty() || !text.iter().any(|b| is_blank(*b) || *b == 0) {
                return Err(Errno::ENOEXEC);
            }
            rest
        }
    };
    let line = line.split(|b| *b == 0).next().unwrap_or_default();
    let line = line.trim_ascii_start();
    let name_end = line.iter().position(|b| is_blank(*b)).unwrap_or(line.len());
    let (name, argument) = line.split_at(name_end);
    if name.is_empty() {
        return Err(Errno::ENOEXEC);
    }
    let from = argument.iter().position(|b| !is_blank(*b)).unwrap_or(argument.len());
    let to = argument.iter().rposition(|b| !is_blank(*b)).map_or(from, |at| at + 1);
    let argument = argument.get(from..to).filter(|a| !a.is_empty()).map(<[u8]>::to_vec);
    Ok(Some(Script { interpreter: name.to_vec(), argument }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &[u8]) -> Result<Option<(Vec<u8>, Option<Vec<u8>>)>, Errno> {
        let mut head = [0u8; 256];
        let n = text.len().min(256);
        head[..n].copy_from_slice(&text[..n]);
        parse(&head).map(|s| s.map(|s| (s.interpreter, s.argument)))
    }

    #[test]
    fn lines() {
        assert_eq!(line(b"\x7fELF"), Ok(None));
        assert_eq!(line(b"#!/bin/sh\n"), Ok(Some((b"/bin/sh".to_vec(), None))));
        assert_eq!(line(b"#! \t/bin/sh -e  x \nrest"), Ok(Some((b"/bin/sh".to_vec(), Some(b"-e  x".to_vec())))));
        assert_eq!(line(b"#!/bin/sh"), Ok(Some((b"/bin/sh".to_vec(), None))));
        assert_eq!(line(b"#!\n"), Err(Errno::ENOEXEC));
        assert_eq!(line(b"#!   \n"), Err(Errno::ENOEXEC));
        let long = [b"#!/".as_slice(), &[b'x'; 300]].concat();
        assert_eq!(line(&long), Err(Errno::ENOEXEC));
        let long = [b"#!/bin/sh ".as_slice(), &[b'x'; 300]].concat();
        assert_eq!(line(&long).unwrap().unwrap().1.unwrap().len(), 246);
    }
}
