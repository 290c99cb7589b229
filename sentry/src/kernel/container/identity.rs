//! Users and groups, from the image's own databases.

use abi::Errno;

use crate::boot::spec::User;
use crate::kernel::creds::Creds;
use crate::kernel::task::CurrentTask;
use crate::vfs;

/// Largest /etc/passwd or /etc/group that is read.
const MAX_DATABASE: usize = 1 << 20;

/// Why a program does not start.
pub struct Failure(pub Errno, pub String);

/// Bytes as text for people.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Credentials and home directory of `user`.
///
/// # Errors
/// A name that the image does not know (ENOENT).
pub fn identity(cx: &mut CurrentTask<'_>, user: &User) -> Result<(Creds, String), Failure> {
    match user {
        User::Named(name) => by_name(cx, name),
        User::Ids { uid, gid, additional_gids } => {
            let wanted = uid.to_string();
            let passwd = database(cx, b"/etc/passwd");
            let entry = passwd.iter().find(|f| f.get(2) == Some(&wanted));
            Ok((Creds::user(*uid, *gid, additional_gids.clone()), home(entry, *uid)))
        }
    }
}

fn home(entry: Option<&Vec<String>>, uid: u32) -> String {
    // Without an entry: as login(1) has it.
    let home = entry.and_then(|f| f.get(5)).filter(|home| !home.is_empty());
    home.cloned().unwrap_or_else(|| if uid == 0 { "/root" } else { "/" }.to_owned())
}

/// For `UID[:GID]` or names.
fn by_name(cx: &mut CurrentTask<'_>, user: &str) -> Result<(Creds, String), Failure> {
    let user = if user.is_empty() { "0:0" } else { user };
    let (user, group) = user.split_once(':').map_or((user, None), |(u, g)| (u, Some(g)));
    let passwd = database(cx, b"/etc/passwd");
    let groups = database(cx, b"/etc/group");
    let entry = passwd.iter().find(|f| f.first().is_some_and(|n| n == user) || f.get(2).is_some_and(|n| n == user));
    let uid = number(user).or_else(|| number(entry?.get(2)?));
    let uid = uid.ok_or_else(|| Failure(Errno::ENOENT, format!("user {user}: not in the image's /etc/passwd")))?;
    let gid = match group {
        Some(name) => {
            let line = groups.iter().find(|f| f.first().is_some_and(|n| n == name));
            let gid = number(name).or_else(|| number(line?.get(2)?));
            gid.ok_or_else(|| Failure(Errno::ENOENT, format!("user group {name}: not in the image's /etc/group")))?
        }
        None => entry.and_then(|f| number(f.get(3)?)).unwrap_or(0),
    };
    let name = entry.and_then(|f| f.first());
    let member = |f: &&Vec<String>| {
        name.is_some_and(|name| f.get(3).is_some_and(|members| members.split(',').any(|m| m == name)))
    };
    let mut extra: Vec<u32> = groups.iter().filter(member).filter_map(|f| number(f.get(2)?)).collect();
    if !extra.contains(&gid) {
        extra.push(gid);
    }
    Ok((Creds::user(uid, gid, extra), home(entry, uid)))
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

/// The fields of a colon-separated database; empty where there is none.
fn database(cx: &mut CurrentTask<'_>, path: &[u8]) -> Vec<Vec<String>> {
    let content = vfs::read_file(cx, path, MAX_DATABASE).unwrap_or_default();
    let lines = content.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    lines.map(|l| text(l).split(':').map(str::to_owned).collect()).collect()
}
