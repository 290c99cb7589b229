//! The shim's command line, in the form of Go's `flag`: `-name value`, `--name=value`, switches.

use crate::failure::{Failure, Result};

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Serve containerd's calls: without an action, as the one that was started.
    #[default]
    Serve,
    /// Start (or find) a shim, and print its address.
    Start,
    /// Clean up after a shim that is gone.
    Delete,
    /// Describe the runtime.
    Info,
    /// Tell the version.
    Version,
}

/// The command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// What to do.
    pub action: Action,
    /// A verbose log.
    pub debug: bool,
    /// containerd's namespace.
    pub namespace: String,
    /// The container.
    pub id: String,
    /// containerd's socket.
    pub address: String,
    /// The bundle, where it is not the working directory.
    pub bundle: String,
    /// Our own socket.
    pub socket: String,
    /// containerd's own program, by which older shims publish events.
    pub publish_binary: String,
}

/// Reads the command line.
///
/// # Errors
/// An unknown flag or action, a flag without its value, no namespace or container.
pub fn parse(args: impl Iterator<Item = String>) -> Result<Flags> {
    let mut flags = Flags::default();
    let mut args = args;
    while let Some(arg) = args.next() {
        let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
            flags.action = action(&arg)?;
            continue;
        };
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value.to_owned())));
        match name {
            "debug" => flags.debug = value.as_deref() != Some("false"),
            "v" | "version" => flags.action = Action::Version,
            "info" => flags.action = Action::Info,
            _ => {
                let value = value.or_else(|| args.next());
                let value = value.ok_or_else(|| Failure::runtime(format!("-{name}: a value is missing")))?;
                *flags.text(name).ok_or_else(|| Failure::runtime(format!("-{name}: no such flag")))? = value;
            }
        }
    }
    let asks = matches!(flags.action, Action::Info | Action::Version);
    if !asks && (flags.namespace.is_empty() || flags.id.is_empty()) {
        return Err(Failure::runtime("-namespace and -id are needed: this program is started by containerd"));
    }
    Ok(flags)
}

fn action(name: &str) -> Result<Action> {
    match name {
        "start" => Ok(Action::Start),
        "delete" => Ok(Action::Delete),
        _ => Err(Failure::runtime(format!("{name}: no such action; start or delete"))),
    }
}

impl Flags {
    fn text(&mut self, name: &str) -> Option<&mut String> {
        match name {
            "namespace" => Some(&mut self.namespace),
            "id" => Some(&mut self.id),
            "address" => Some(&mut self.address),
            "bundle" => Some(&mut self.bundle),
            "socket" => Some(&mut self.socket),
            "publish-binary" => Some(&mut self.publish_binary),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Flags> {
        parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn containerd_s_lines_are_understood() {
        let line = "-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id a -debug start";
        let flags = parsed(line).unwrap();
        assert_eq!((flags.action, flags.namespace.as_str(), flags.id.as_str()), (Action::Start, "k8s.io", "a"));
        assert!(flags.debug);
        let flags = parsed("--namespace=n --id=x -bundle /b delete").unwrap();
        assert_eq!((flags.action, flags.bundle.as_str()), (Action::Delete, "/b"));
        assert_eq!(parsed("-info").unwrap().action, Action::Info);
    }

    #[test]
    fn wrong_lines_are_refused() {
        for line in ["start", "-namespace n -id", "-namespace n -id i -nope x", "-namespace n -id i stop"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
