//! `nanovisor do`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::parse;
use crate::walls::Trial;

/// Which platform runs the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PlatformChoice {
    /// The quicker one of those that work here, by a short measurement kept until the next boot
    #[default]
    Auto,
    /// Hardware virtualisation through /dev/kvm
    Kvm,
    /// ptrace: works on every host
    Ptrace,
}

const EXAMPLES: &str = "\
Examples:
  nanovisor do --image debian.img -- python3 -c 'print(1)'
  nanovisor do --root ./rootfs --memory 512M --cpus 2 -- make test
  nanovisor do --image debian.img --user nobody --cwd /tmp --env LANG=C.UTF-8 -- sh -c 'id; pwd'
  nanovisor do --image debian.img --strace --log trace.txt -- ls

The terminal, the streams and signals go through to the program. With a terminal, Ctrl-C and Ctrl-Z reach the program's
own terminal inside; without one, INT, TERM, HUP, QUIT, USR1, USR2, ALRM, CONT and WINCH sent to nanovisor go to it, and
TSTP stops both.";

/// The flags of `nanovisor do`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct DoArgs {
    /// The root file system: an image (`nanovisor image build` makes one)
    #[arg(long, value_name = "FILE", conflicts_with = "root")]
    pub image: Option<PathBuf>,
    /// The root file system: a directory, imaged into a cache first
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Show a host directory in the sandbox
    #[arg(long, value_name = "HOST:GUEST[:ro]")]
    pub volume: Vec<String>,
    /// What runs the guest's code
    #[arg(long, value_enum, default_value = "auto")]
    pub platform: PlatformChoice,
    /// Most memory the guest may use, enforced by the sandbox's own kernel [default: half of the host's]
    #[arg(long, value_name = "SIZE", value_parser = parse::memory)]
    pub memory: Option<u64>,
    /// How many CPUs the guest has [default: the host's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub cpus: Option<u16>,
    /// Set an environment variable; may be repeated
    #[arg(long, short = 'e', value_name = "KEY=VALUE", value_parser = parse::assignment)]
    pub env: Vec<String>,
    /// The working directory
    #[arg(long, value_name = "PATH", default_value = "/", value_parser = parse::guest_path)]
    pub cwd: String,
    /// The user and group, as numbers or as names of the image
    #[arg(long, short = 'u', value_name = "USER[:GROUP]", default_value = "0:0", value_parser = parse::user)]
    pub user: String,
    /// The host name inside
    #[arg(long, value_name = "NAME", default_value = "nanovisor", value_parser = parse::hostname)]
    pub hostname: String,
    /// Log every system call of the guest
    #[arg(long)]
    pub strace: bool,
    /// Wake and retry every blocked call at random, from this seed: for tests
    #[arg(long, value_name = "SEED", hide = true)]
    pub chaos: Option<u64>,
    /// Give the program a terminal even where standard input or output is none
    #[arg(long, short = 't')]
    pub tty: bool,
    /// Give the program no terminal
    #[arg(long, conflicts_with = "tty")]
    pub no_tty: bool,
    /// Write a snapshot into this folder when the program says that it is ready, by a write to
    /// /proc/nanovisor/checkpoint
    #[arg(long, value_name = "DIR")]
    pub checkpoint_at_ready: Option<PathBuf>,
    /// End the sandbox when the snapshot is written
    #[arg(long, requires = "checkpoint_at_ready")]
    pub stop_after: bool,
    /// Go on from the snapshot in this folder instead of starting a program; the image must be the one that it was
    /// made from
    #[arg(long, value_name = "DIR", conflicts_with_all = ["tty", "command"])]
    pub restore: Option<PathBuf>,
    /// Take down one of the sandbox's walls, to prove that it stands
    #[cfg(feature = "compromised")]
    #[arg(long, value_enum, value_name = "WALL")]
    pub without: Vec<crate::walls::Wall>,
    /// Play a sandbox process under an attacker's control that tries this
    #[cfg(feature = "compromised")]
    #[arg(long, value_name = "ATTEMPT")]
    pub attempt: Option<String>,
    /// The program and its arguments
    #[arg(
        required_unless_present = "restore",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub command: Vec<OsString>,
}

impl DoArgs {
    /// What the command line says about walls: nothing, but in the build that proves them.
    #[must_use]
    pub fn trial(&self) -> Trial {
        Trial {
            #[cfg(feature = "compromised")]
            without: self.without.clone(),
            #[cfg(feature = "compromised")]
            attempt: self.attempt.clone(),
            #[cfg(feature = "compromised")]
            victim: std::process::id(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn parse(args: &[&str]) -> Result<super::DoArgs, clap::Error> {
        let all = ["nanovisor", "do"].iter().chain(args);
        match Cli::try_parse_from(all)?.command {
            Command::Do(args) => Ok(*args),
            _ => unreachable!("`do` was given"),
        }
    }

    #[test]
    fn the_command_keeps_its_own_flags() {
        let args = parse(&["--image", "x", "-e", "A=b", "--", "ls", "--image", "-l"]).unwrap();
        assert_eq!(args.command, ["ls", "--image", "-l"]);
        assert_eq!(args.env, ["A=b"]);
        let args = parse(&["--image", "x", "ls", "--help"]).unwrap();
        assert_eq!(args.command, ["ls", "--help"]);
    }

    #[test]
    fn wrong_values_are_refused() {
        for bad in [
            &["--image", "x"][..],
            &["--image", "x", "--root", "y", "ls"],
            &["--memory", "tiny", "ls"],
            &["--cpus", "0", "ls"],
            &["--env", "novalue", "ls"],
            &["--platform", "xen", "ls"],
            &["--cwd", "relative", "ls"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
