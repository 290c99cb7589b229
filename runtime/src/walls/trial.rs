//! Trials: a build feature takes single walls down, and plays a sandbox process under an attacker's control, so that a
//! test can show that each wall holds by itself (`tests/walls.rs`). Other builds have all walls, unconditionally.

use serde::{Deserialize, Serialize};

/// A wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Wall {
    /// The system call filter.
    Filter,
    /// The empty root.
    Root,
    /// The pid namespace.
    Pid,
    /// The network namespace.
    Net,
    /// No capabilities, and no way to new ones.
    Capabilities,
    /// The user namespace, and being nobody on the host.
    User,
}

/// Which walls are down, and what is attempted then.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Trial {
    /// Walls taken down.
    #[cfg(feature = "compromised")]
    pub without: Vec<Wall>,
    /// What the sandbox process tries once it is sealed.
    #[cfg(feature = "compromised")]
    pub attempt: Option<String>,
    /// The host's number of the command line's process: what attempts on other processes are aimed at.
    #[cfg(feature = "compromised")]
    pub victim: u32,
}

impl Trial {
    /// Whether `wall` stands. It always does but in the build that proves the walls.
    #[must_use]
    #[cfg_attr(not(feature = "compromised"), expect(clippy::unused_self, reason = "the other build looks at it"))]
    pub fn stands(&self, wall: Wall) -> bool {
        #[cfg(feature = "compromised")]
        return !self.without.contains(&wall);
        #[cfg(not(feature = "compromised"))]
        {
            let _ = wall;
            true
        }
    }

    /// Plays the attacker.
    ///
    /// # Errors
    /// What was attempted failed.
    #[cfg(feature = "compromised")]
    pub fn attempt(&self) -> Result<(), String> {
        self.attempt.as_deref().map_or(Ok(()), |name| super::compromised::play(name, self.victim))
    }
}
