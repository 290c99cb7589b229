//! Snapshots of containers: saved, restored, forked; and snapshots that are none.

mod common;
#[path = "common/oci.rs"]
mod oci;

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Stdio};

use common::{finish, platforms};
use oci::{Place, wait_until};
use serde_json::{Value, json};

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: cgroups of these tests need root");
    }
    root
}

fn places() -> impl Iterator<Item = Place> {
    platforms().into_iter().filter(|_| is_root()).map(Place::new)
}

/// Counts for ever, and says which instance it is.
const COUNT: &str = "n=0; while :; do n=$((n+1)); echo $n $(cat /proc/nanovisor/checkpoint); sleep 0.1; done";

fn config(place: &Place, script: &str) -> Value {
    let mut config = place.config(&["sh", "-c", script]);
    // The root is imaged, and what is written to it stays in memory: host directories are not saved.
    config["annotations"]["dev.nanovisor.overlay"] = "memory".into();
    config
}

/// A container that counts.
fn start(place: &Place, id: &str) -> i32 {
    let pid = place.create(id, &config(place, COUNT));
    place.ok(&["start", id]);
    wait_until("it counts", || place.printed(id).lines().count() > 2);
    pid
}

/// Runs a command that makes the container `id`, whose output goes where `Place::printed` finds it.
fn detached(place: &Place, id: &str, args: &[&str]) {
    let out = fs::File::create(place.output_path(id)).unwrap();
    let err = fs::File::create(place.path().join("err")).unwrap();
    let status = place.command(args).stdin(Stdio::null()).stdout(out).stderr(err).status().unwrap();
    assert!(status.success(), "{args:?}: {}", fs::read_to_string(place.path().join("err")).unwrap());
}

/// The numbers that were counted, and who has counted.
fn counted(place: &Place, id: &str) -> (Vec<u64>, BTreeSet<String>) {
    let text = place.printed(id);
    let whole = text.lines().filter_map(|line| line.split_once(' '));
    let (numbers, names): (Vec<_>, Vec<_>) =
        whole.map(|(n, name)| (n.parse::<u64>().unwrap(), name.to_owned())).unzip();
    (numbers, names.into_iter().collect())
}

#[test]
fn a_container_is_saved_and_both_go_on() {
    for place in places() {
        let (id, other) = (place.id("saved"), place.id("restored"));
        start(&place, &id);
        // Not by `ok`: the streams are the sleeper's from then on.
        let mut exec = place.command(&["exec", "--detach", &id, "sleep", "1234"]);
        let exec = exec.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(exec.unwrap().success());
        let snapshot = place.path().join("snapshot");
        let snapshot = snapshot.to_str().unwrap();
        place.ok(&["checkpoint", "--image-path", snapshot, "--leave-running", &id]);
        let before = counted(&place, &id).0.len();
        wait_until("the original goes on", || counted(&place, &id).0.len() > before + 2);
        // Once more, over the first one, of a container that is held.
        place.ok(&["pause", &id]);
        place.ok(&["checkpoint", "--image-path", snapshot, "--leave-running", &id]);
        assert_eq!(place.status(&id), "paused");
        let held = *counted(&place, &id).0.last().unwrap();
        let bundle = place.path().join(format!("bundle-{id}"));
        let bundle = bundle.to_str().unwrap();
        detached(&place, &other, &["restore", "--detach", "--image-path", snapshot, "--bundle", bundle, &other]);
        assert_eq!(place.status(&other), "running");
        wait_until("the restored one counts", || counted(&place, &other).0.len() > 2);
        let (numbers, names) = counted(&place, &other);
        assert!(numbers[0] == held || numbers[0] == held + 1, "{numbers:?} after {held}");
        assert!(names.iter().all(|name| name.starts_with("restored ")), "{names:?}");
        assert!(place.ok(&["ps", &other]).contains("sleep 1234"));
        assert_eq!(place.ok(&["exec", &other, "echo", "hello"]), "hello\n");
        let instance: Value =
            serde_json::from_str(&place.ok(&["exec", &other, "cat", "/run/nanovisor/instance.json"])).unwrap();
        assert_eq!((&instance["name"], &instance["origin"]), (&json!(other), &json!("restored")));
        assert!(place.fails(&["restore", "--image-path", snapshot, "-b", bundle, &id], 125).contains("already exists"));
        place.ok(&["resume", &id]);
        // Without --leave-running nothing of it is left.
        place.ok(&["checkpoint", "--image-path", snapshot, &id]);
        assert!(place.fails(&["state", &id], 1).contains("does not exist"));
        assert!(place.fails(&["checkpoint", "--image-path", snapshot, &id], 1).contains("does not exist"));
        place.ok(&["delete", "--force", &other]);
        place.assert_empty();
    }
}

#[test]
fn a_snapshot_that_is_none_starts_nothing() {
    for place in places() {
        let (id, other) = (place.id("saved"), place.id("restored"));
        start(&place, &id);
        let good = place.path().join("good");
        place.ok(&["checkpoint", "--image-path", good.to_str().unwrap(), &id]);
        let bundle = place.path().join(format!("bundle-{id}"));
        let (state, pages) = (fs::read(good.join("state")).unwrap(), fs::read(good.join("pages")).unwrap());
        let flipped = |bytes: &[u8], at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 1;
            bytes
        };
        let cases = [
            (state[..state.len() / 2].to_vec(), pages.clone()),
            (Vec::new(), pages.clone()),
            (flipped(&state, 8), pages.clone()),
            (flipped(&state, state.len() / 2), pages.clone()),
            (flipped(&state, state.len() - 1), pages.clone()),
            (state.clone(), pages[..pages.len() - 4096].to_vec()),
            (state.clone(), flipped(&pages, 20)),
            (state.clone(), Vec::new()),
        ];
        let bad = place.path().join("bad");
        fs::create_dir(&bad).unwrap();
        for (n, (state, pages)) in cases.into_iter().enumerate() {
            fs::write(bad.join("state"), state).unwrap();
            fs::write(bad.join("pages"), pages).unwrap();
            let args = ["restore", "--image-path", bad.to_str().unwrap(), "--bundle", bundle.to_str().unwrap(), &other];
            let line = place.fails(&args, 123);
            assert!(line.contains("restoring the sandbox: "), "case {n}: {line}");
            place.assert_empty();
        }
        let none = place.path().join("none");
        let args = ["restore", "--image-path", none.to_str().unwrap(), "--bundle", bundle.to_str().unwrap(), &other];
        assert!(place.fails(&args, 123).contains("opening the snapshot"));
        place.assert_empty();
    }
}

/// A pool, ended with the test.
struct Pool(Option<Child>);

impl Pool {
    fn serve(place: &Place) -> Pool {
        let mut command = place.command(&["pool", "serve", "--blanks", "2", "--platform", place.platform()]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pool = Pool(Some(child));
        wait_until("blanks are ready", || pool.stats(place)["ready"] == 2);
        pool
    }

    fn stats(&self, place: &Place) -> Value {
        let output = place.run(&["pool", "stats"]);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    fn end(mut self, signal: nix::sys::signal::Signal) {
        let child = self.0.take().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        finish(child, "the pool");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Says that it is ready until it is a fork; then says what no other instance may say.
const UNIQUE: &str = "until grep -q forked /proc/nanovisor/checkpoint; do echo > /proc/nanovisor/checkpoint; sleep 0.1; \
    done; cat /proc/nanovisor/checkpoint; \
    cat /proc/sys/kernel/random/boot_id; cat /proc/sys/kernel/random/uuid; cat /run/nanovisor/instance.json; \
    head -c 16 /dev/urandom | od -An -tx1; echo done; sleep 1000";

#[test]
fn forks_are_instances_of_their_own() {
    for place in places() {
        let id = place.id("original");
        place.create(&id, &config(&place, UNIQUE));
        place.ok(&["start", &id]);
        place.ok(&["template", "create", "--from", &id, "--at-ready", "t"]);
        assert!(place.ok(&["template", "list"]).contains(&id));
        place.ok(&["delete", "--force", &id]);
        let pool = Pool::serve(&place);
        let mut said: Vec<String> = Vec::new();
        for (n, options) in [&[][..], &["--no-pool"][..], &["--metadata", "{\"k\":1}"][..]].iter().enumerate() {
            let fork = place.id(&format!("fork{n}"));
            let args = [&["fork", "--template", "t", "--detach"][..], options, &[fork.as_str()][..]].concat();
            detached(&place, &fork, &args);
            wait_until("the fork answers", || place.printed(&fork).contains("done"));
            said.push(place.printed(&fork));
            assert_eq!(place.ok(&["exec", &fork, "echo", "hello"]), "hello\n");
        }
        assert!(said[2].contains("\"metadata\":{\"k\":1}"), "{}", said[2]);
        assert!(said.iter().all(|said| said.starts_with("forked ")), "{said:?}");
        let lines: Vec<&str> = said.iter().flat_map(|said| said.lines()).filter(|l| !l.contains(['r', 'n'])).collect();
        let distinct: BTreeSet<_> = lines.iter().collect();
        assert_eq!(distinct.len(), lines.len(), "{said:?}");
        assert!(pool.stats(&place)["taken"].as_u64() >= Some(1), "{}", pool.stats(&place));
        // Instances and the template outlive a pool that is killed; forks go on without it.
        pool.end(nix::sys::signal::Signal::SIGKILL);
        let last = place.id("last");
        detached(&place, &last, &["fork", "--template", "t", "--detach", "--count", "1", &last]);
        for n in 0..3 {
            assert_eq!(place.status(&place.id(&format!("fork{n}"))), "running");
            place.ok(&["delete", "--force", &place.id(&format!("fork{n}"))]);
        }
        place.ok(&["delete", "--force", &format!("{last}-1")]);
        Pool::serve(&place).end(nix::sys::signal::Signal::SIGTERM);
        place.ok(&["template", "delete", "t"]);
        assert!(place.fails(&["fork", "--template", "t", "-d", &last], 125).contains("template t does not exist"));
        place.assert_empty();
    }
}
