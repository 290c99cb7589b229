//! The messages.

use serde::{Deserialize, Serialize};

use crate::{Fault, MAX_TARGET, name};

/// Names a file that the gofer holds for its client; never used twice within a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub u64);

/// A point in time: seconds and nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nsec: u32,
}

/// Type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// S_IFREG.
    Regular,
    /// S_IFDIR.
    Directory,
    /// S_IFLNK.
    Symlink,
    /// S_IFCHR.
    CharDevice,
    /// S_IFBLK.
    BlockDevice,
    /// S_IFIFO.
    Fifo,
    /// S_IFSOCK.
    Socket,
}

impl Kind {
    /// From the S_IFMT bits of a mode.
    #[must_use]
    pub fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => Kind::Regular,
            libc::S_IFDIR => Kind::Directory,
            libc::S_IFLNK => Kind::Symlink,
            libc::S_IFCHR => Kind::CharDevice,
            libc::S_IFBLK => Kind::BlockDevice,
            libc::S_IFIFO => Kind::Fifo,
            libc::S_IFSOCK => Kind::Socket,
            _ => return None,
        })
    }
}

/// What `stat(2)` tells of a host file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attr {
    /// `st_dev` of the host.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
    /// Type.
    pub kind: Kind,
    /// 0o7777.
    pub perm: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links.
    pub nlink: u32,
    /// Bytes.
    pub size: u64,
    /// 512-byte blocks.
    pub blocks: u64,
    /// Preferred I/O size.
    pub blksize: u32,
    /// Device number of a device.
    pub rdev: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
}

/// A file found or made: the id it is held by from now on, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Held until closed.
    pub id: NodeId,
    /// What it is.
    pub attr: Attr,
    /// A symlink's target.
    pub target: Option<Vec<u8>>,
}

/// A directory entry, and the file it names where that was asked for, there was room, and it had not vanished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirItem {
    /// Name.
    pub name: Vec<u8>,
    /// Inode number.
    pub ino: u64,
    /// Type.
    pub kind: Kind,
    /// Continues behind this entry.
    pub next: u64,
    /// The file, held as if it had been walked to.
    pub entry: Option<Entry>,
}

/// Attribute changes; `None` leaves a field as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// 0o7777.
    pub perm: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<Time>,
    /// Last change of content.
    pub mtime: Option<Time>,
}

/// Owner and permissions of what is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewFile {
    /// 0o7777; no umask applies.
    pub perm: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a donated descriptor can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenMode {
    /// O_RDONLY.
    Read,
    /// O_RDWR; falls back to nothing: what cannot be read cannot be opened so.
    ReadWrite,
}

/// What `statfs(2)` tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatFs {
    /// Magic number.
    pub magic: u64,
    /// Block size.
    pub bsize: u64,
    /// Blocks in all, free, and free for users.
    pub blocks: [u64; 3],
    /// Inodes in all and free.
    pub files: [u64; 2],
    /// Longest name.
    pub namelen: u64,
}

/// One directory that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountInfo {
    /// Nothing can be changed through it.
    pub readonly: bool,
}

/// A request. Names are single components; `..` and symlinks are the client's to resolve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The first: the client's version.
    Hello(u32),
    /// The root of mount number N.
    Attach(u32),
    /// Goes down from `node`, name by name, as far as it gets; never follows a symlink.
    Walk {
        /// Start.
        node: NodeId,
        /// Names.
        names: Vec<Vec<u8>>,
    },
    /// Attributes now.
    GetAttr(NodeId),
    /// Changes attributes, and answers what they are then.
    SetAttr {
        /// Which.
        node: NodeId,
        /// How.
        change: Change,
    },
    /// The file system it lies in.
    StatFs(NodeId),
    /// Donates a descriptor of a regular file.
    Open {
        /// Which.
        node: NodeId,
        /// What for.
        mode: OpenMode,
    },
    /// Lists a directory behind the cookie.
    ReadDir {
        /// Which.
        node: NodeId,
        /// 0, or an entry's `next`.
        cookie: u64,
        /// Whether the files are wanted too, not their names alone.
        entries: bool,
    },
    /// A symlink's target.
    ReadLink(NodeId),
    /// Makes a regular file, which must be new, and donates a descriptor for reading and writing.
    Create {
        /// Where.
        dir: NodeId,
        /// Name.
        name: Vec<u8>,
        /// Owner and permissions.
        new: NewFile,
    },
    /// Makes a regular file without a name, which [`Request::Link`] may name later, and donates a descriptor.
    CreateUnnamed {
        /// In whose file system.
        dir: NodeId,
        /// Owner and permissions.
        new: NewFile,
    },
    /// Makes a directory.
    MkDir {
        /// Where.
        dir: NodeId,
        /// Name.
        name: Vec<u8>,
        /// Owner and permissions.
        new: NewFile,
    },
    /// Makes an empty regular file, a FIFO or a socket's name. Devices are refused.
    MkNod {
        /// Where.
        dir: NodeId,
        /// Name.
        name: Vec<u8>,
        /// Type.
        kind: Kind,
        /// Owner and permissions.
        new: NewFile,
    },
    /// Makes a symlink.
    Symlink {
        /// Where.
        dir: NodeId,
        /// Name.
        name: Vec<u8>,
        /// Where it leads; never looked at by the gofer.
        target: Vec<u8>,
        /// Owner; permissions have no meaning.
        new: NewFile,
    },
    /// Gives `node` another name.
    Link {
        /// Which.
        node: NodeId,
        /// Where.
        dir: NodeId,
        /// Name.
        name: Vec<u8>,
    },
    /// Removes a name.
    Unlink {
        /// Where.
        dir: NodeId,
        /// Name.
        name: Vec<u8>,
        /// An empty directory's, or anything else's.
        is_dir: bool,
    },
    /// `renameat2(2)`.
    Rename {
        /// From where.
        dir: NodeId,
        /// What.
        name: Vec<u8>,
        /// To where.
        new_dir: NodeId,
        /// As what.
        new_name: Vec<u8>,
        /// RENAME_NOREPLACE or RENAME_EXCHANGE.
        flags: u32,
    },
    /// The value of an extended attribute.
    GetXattr {
        /// Which file.
        node: NodeId,
        /// Which attribute.
        name: Vec<u8>,
    },
    /// Sets an extended attribute.
    SetXattr {
        /// Which file.
        node: NodeId,
        /// Which attribute.
        name: Vec<u8>,
        /// To what.
        value: Vec<u8>,
        /// XATTR_CREATE or XATTR_REPLACE.
        flags: u32,
    },
    /// The names of all extended attributes.
    ListXattr(NodeId),
    /// Removes an extended attribute.
    RemoveXattr {
        /// Which file.
        node: NodeId,
        /// Which attribute.
        name: Vec<u8>,
    },
    /// `fsync(2)`, `fdatasync(2)`.
    Sync {
        /// Which.
        node: NodeId,
        /// Content alone.
        data_only: bool,
    },
    /// `fallocate(2)`.
    Allocate {
        /// Which.
        node: NodeId,
        /// FALLOC_FL_*.
        mode: u32,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Connects to the host's Unix socket of that name and donates the connection.
    Connect {
        /// Which.
        node: NodeId,
        /// SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
        kind: u32,
    },
    /// Makes a Unix socket, binds it to a new name and donates it.
    Bind {
        /// Where.
        dir: NodeId,
        /// Name.
        name: Vec<u8>,
        /// As in [`Request::Connect`].
        kind: u32,
        /// Owner and permissions.
        new: NewFile,
    },
    /// Lets go of files. Not answered; ids that are not held are passed over.
    Close(Vec<NodeId>),
}

/// What a request answers when it succeeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done,
    /// To [`Request::Hello`]: the server's version and what it serves.
    Hello {
        /// Version.
        version: u32,
        /// By number.
        mounts: Vec<MountInfo>,
    },
    /// A file that is now held.
    Entry(Entry),
    /// To [`Request::Walk`]: what was found, and the errno that stopped it before the last name.
    Walk {
        /// In order.
        found: Vec<Entry>,
        /// 0 where all names were found or a component was no directory.
        errno: u16,
    },
    /// Attributes.
    Attr(Attr),
    /// To [`Request::StatFs`].
    StatFs(StatFs),
    /// A descriptor comes with it.
    Donated(Attr),
    /// A new file and a descriptor of it.
    Created(Entry),
    /// To [`Request::ReadDir`].
    Items {
        /// Entries.
        items: Vec<DirItem>,
        /// There are no more.
        end: bool,
    },
    /// A target or a value.
    Bytes(Vec<u8>),
    /// Names of attributes.
    Names(Vec<Vec<u8>>),
}

/// A request's end: its reply, or an errno.
pub type Answer = Result<Reply, u16>;

impl Request {
    /// Whether it changes nothing, so that asking twice does no harm.
    #[must_use]
    pub fn is_look(&self) -> bool {
        matches!(
            self,
            Request::Attach(_)
                | Request::Walk { .. }
                | Request::GetAttr(_)
                | Request::StatFs(_)
                | Request::Open { .. }
                | Request::ReadDir { .. }
                | Request::ReadLink(_)
                | Request::GetXattr { .. }
                | Request::ListXattr(_)
        )
    }

    /// Whether an answer follows.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        !matches!(self, Request::Close(_))
    }
}

impl Entry {
    fn is_possible(&self) -> bool {
        self.attr.is_possible()
            && self.target.as_ref().is_none_or(|t| t.len() <= MAX_TARGET && !t.contains(&0))
            && self.target.is_some() == (self.attr.kind == Kind::Symlink)
    }
}

impl Attr {
    fn is_possible(&self) -> bool {
        let nsec = [self.atime, self.mtime, self.ctime].iter().all(|t| t.nsec < 1_000_000_000);
        nsec && self.perm & !0o7777 == 0 && i64::try_from(self.size).is_ok()
    }
}

impl Reply {
    /// Descriptors that come with it.
    #[must_use]
    pub fn fds(&self) -> usize {
        usize::from(matches!(self, Reply::Donated(_) | Reply::Created(_)))
    }

    /// The files that the client holds by this reply.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.entries().map(|e| e.id)
    }

    /// The files themselves, in the reply's order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        let (entries, items): (&[Entry], &[DirItem]) = match self {
            Reply::Entry(entry) | Reply::Created(entry) => (std::slice::from_ref(entry), &[]),
            Reply::Walk { found, .. } => (found, &[]),
            Reply::Items { items, .. } => (&[], items),
            _ => (&[], &[]),
        };
        entries.iter().chain(items.iter().filter_map(|i| i.entry.as_ref()))
    }

    /// Checks that this can be the answer to `request`.
    ///
    /// # Errors
    /// `WrongKind`; `BadValue`; `Version`.
    pub fn check(&self, request: &Request) -> Result<(), Fault> {
        let possible = match (request, self) {
            (Request::Hello(_), Reply::Hello { version, .. }) => {
                return if *version == crate::VERSION { Ok(()) } else { Err(Fault::Version) };
            }
            (Request::Attach(_) | Request::MkDir { .. } | Request::MkNod { .. }, Reply::Entry(entry))
            | (Request::Symlink { .. }, Reply::Entry(entry))
            | (Request::Create { .. } | Request::CreateUnnamed { .. } | Request::Bind { .. }, Reply::Created(entry)) => {
                entry.is_possible() && entry.attr.kind == made_kind(request).unwrap_or(entry.attr.kind)
            }
            (Request::Walk { names, .. }, Reply::Walk { found, errno }) => {
                let complete = found.len() == names.len();
                found.len() <= names.len()
                    && found.iter().all(Entry::is_possible)
                    && found.iter().rev().skip(1).all(|e| e.attr.kind == Kind::Directory)
                    && (!complete || *errno == 0)
                    && (complete || *errno != 0 || found.last().is_some_and(|e| e.attr.kind != Kind::Directory))
            }
            (Request::GetAttr(_) | Request::SetAttr { .. }, Reply::Attr(attr)) => attr.is_possible(),
            (Request::Open { .. }, Reply::Donated(attr)) => attr.is_possible() && attr.kind == Kind::Regular,
            (Request::Connect { .. }, Reply::Donated(attr)) => attr.is_possible() && attr.kind == Kind::Socket,
            (Request::ReadDir { .. }, Reply::Items { items, end }) => {
                let named = items.iter().all(|i| name::check(&i.name).is_ok());
                let same = |i: &DirItem, e: &Entry| e.is_possible() && e.attr.kind == i.kind && e.attr.ino == i.ino;
                let held = items.iter().all(|i| i.entry.as_ref().is_none_or(|e| same(i, e)));
                // An empty piece that is not the last would be asked for again and again.
                named && held && (*end || !items.is_empty())
            }
            (Request::ReadLink(_), Reply::Bytes(target)) => target.len() <= MAX_TARGET && !target.contains(&0),
            (Request::GetXattr { .. }, Reply::Bytes(_)) => true,
            (Request::ListXattr(_), Reply::Names(names)) => names.iter().all(|n| name::check_xattr(n).is_ok()),
            (Request::StatFs(_), Reply::StatFs(_)) => true,
            (
                Request::Link { .. }
                | Request::Unlink { .. }
                | Request::Rename { .. }
                | Request::SetXattr { .. }
                | Request::RemoveXattr { .. }
                | Request::Sync { .. }
                | Request::Allocate { .. },
                Reply::Done,
            ) => true,
            _ => return Err(Fault::WrongKind),
        };
        if possible { Ok(()) } else { Err(Fault::BadValue) }
    }
}

/// The type of what a request makes.
fn made_kind(request: &Request) -> Option<Kind> {
    Some(match request {
        Request::Create { .. } | Request::CreateUnnamed { .. } => Kind::Regular,
        Request::MkDir { .. } => Kind::Directory,
        Request::Symlink { .. } => Kind::Symlink,
        Request::Bind { .. } => Kind::Socket,
        Request::MkNod { kind, .. } => *kind,
        _ => return None,
    })
}
