//! Credentials: who a task is. Immutable; a change makes a new value.

/// Capability sets, bits as in `include/uapi/linux/capability.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Capabilities {
    /// May be used now.
    pub effective: u64,
    /// May be made effective.
    pub permitted: u64,
    /// Survive exec, where the file says so too.
    pub inheritable: u64,
    /// Upper bound of what exec can gain.
    pub bounding: u64,
    /// Survive exec of ordinary files.
    pub ambient: u64,
}

impl Capabilities {
    /// These sets as `capset(2)` would have them: known bits only, effective within permitted, ambient within both
    /// permitted and inheritable.
    #[must_use]
    pub fn valid(self) -> Self {
        let permitted = self.permitted & ALL_CAPS;
        let inheritable = self.inheritable & ALL_CAPS;
        Capabilities {
            effective: self.effective & permitted,
            permitted,
            inheritable,
            bounding: self.bounding & ALL_CAPS,
            ambient: self.ambient & permitted & inheritable,
        }
    }
}

/// All capabilities that exist (CAP_CHECKPOINT_RESTORE is the last).
pub const ALL_CAPS: u64 = (1 << 41) - 1;

/// A task's identity.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Creds {
    /// Real, effective, saved, file-system user ids.
    pub uid: [u32; 4],
    /// Real, effective, saved, file-system group ids.
    pub gid: [u32; 4],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capabilities.
    pub caps: Capabilities,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// `PR_SET_SECUREBITS`.
    pub securebits: u32,
    /// `PR_SET_KEEPCAPS`.
    pub keep_caps: bool,
}

impl Creds {
    /// Root with every capability (inside the sandbox, where that means nothing to the host).
    #[must_use]
    pub fn root() -> Self {
        let caps = Capabilities { effective: ALL_CAPS, permitted: ALL_CAPS, bounding: ALL_CAPS, ..Default::default() };
        Creds { uid: [0; 4], gid: [0; 4], groups: vec![0], caps, no_new_privs: false, securebits: 0, keep_caps: false }
    }

    /// A user; without capabilities unless it is root.
    #[must_use]
    pub fn user(uid: u32, gid: u32, groups: Vec<u32>) -> Self {
        let mut creds = Creds { uid: [uid; 4], gid: [gid; 4], groups, ..Creds::root() };
        if uid != 0 {
            creds.caps = Capabilities { bounding: ALL_CAPS, ..Default::default() };
        }
        creds
    }

    /// Effective user id.
    #[must_use]
    pub fn euid(&self) -> u32 {
        self.uid[1]
    }

    /// Effective group id.
    #[must_use]
    pub fn egid(&self) -> u32 {
        self.gid[1]
    }

    /// File-system user id, which file permission checks use.
    #[must_use]
    pub fn fsuid(&self) -> u32 {
        self.uid[3]
    }

    /// File-system group id.
    #[must_use]
    pub fn fsgid(&self) -> u32 {
        self.gid[3]
    }

    /// Whether `gid` is the file-system group or a supplementary one.
    #[must_use]
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid() == gid || self.groups.contains(&gid)
    }

    /// Whether the capability with number `cap` (`libc`-style `CAP_*` number) is effective.
    #[must_use]
    pub fn has_cap(&self, cap: u32) -> bool {
        cap < 64 && self.caps.effective & (1 << cap) != 0
    }
}
