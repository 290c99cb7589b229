//! A command may be killed at any moment: whatever it was at, `delete --force` leaves nothing of the container.

mod common;
#[path = "common/oci.rs"]
mod oci;
#[allow(dead_code, reason = "the test needs the names alone")]
#[path = "../src/kill_points.rs"]
mod points;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{nanovisor, platforms};
use oci::{Place, wait_until};
use serde_json::json;

fn stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
}

/// Starts `command` so that it stops at `point`, and kills it there.
fn kill_at(point: &str, mut command: Command) {
    command.env("NANOVISOR_STOP_AT", point).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child: Child = command.spawn().unwrap();
    wait_until(&format!("{point} is reached"), || stopped(child.id()) || child.try_wait().unwrap().is_some());
    assert!(child.try_wait().unwrap().is_none(), "{point} is not reached");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Processes of this very binary, zombies (whose new parent may be slow) apart.
fn processes() -> Vec<String> {
    let program = fs::canonicalize(nanovisor().get_program()).unwrap();
    let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let ours = |dir: &Path| fs::read_link(dir.join("exe")).is_ok_and(|exe| exe == program);
    all.filter(|dir| ours(dir)).map(|dir| dir.display().to_string()).collect()
}

#[test]
fn delete_cleans_after_a_kill_at_every_point() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: cgroups of this test need root");
        return;
    }
    for platform in platforms() {
        let place = Place::new(platform);
        let shared = place.path().join("shared");
        fs::create_dir(&shared).unwrap();
        let mut config = place.config(&["sleep", "1000"]);
        let bind = json!({ "destination": "/shared", "type": "bind", "source": shared, "options": ["bind"] });
        config["mounts"].as_array_mut().unwrap().push(bind);
        let mut saved = place.config(&["sleep", "1000"]);
        saved["annotations"]["dev.nanovisor.overlay"] = "memory".into();
        for point in points::ALL {
            let id = place.id(point);
            let checkpoint = point.starts_with("checkpoint");
            let config = if checkpoint { &saved } else { &config };
            let bundle = place.bundle(point, config);
            let create = ["create", "--bundle", bundle.to_str().unwrap(), &id];
            if point.starts_with("create") {
                kill_at(point, place.command(&create));
            } else {
                place.create(&id, config);
                match point {
                    "exec-running" => {
                        place.ok(&["start", &id]);
                        kill_at(point, place.command(&["exec", &id, "sleep", "500"]));
                    }
                    _ if checkpoint => {
                        place.ok(&["start", &id]);
                        let snapshot = place.path().join("snapshot");
                        kill_at(point, place.command(&["checkpoint", "--image-path", snapshot.to_str().unwrap(), &id]));
                    }
                    _ if point.starts_with("start") => kill_at(point, place.command(&["start", &id])),
                    _ => kill_at(point, place.command(&["delete", "--force", &id])),
                }
            }
            place.ok(&["delete", "--force", &id]);
            place.assert_empty();
            wait_until(&format!("nothing runs after {point}: {:?}", processes()), || processes().is_empty());
        }
    }
}
