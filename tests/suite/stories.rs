//! What people do at a terminal.

use nanovisor_tests::pty::Session;
use nanovisor_tests::terminal::{PROMPT, SHELL, Story, ask, ask_for, settle};

type Played = Result<(), String>;

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_Z: &str = "\x1a";
const CTRL_BACKSLASH: &str = "\x1c";
/// Says that it runs once it is the terminal's foreground job.
const SLEEPER: &str = "sh -c 'echo run''ning; exec sleep 300'";
/// The same, and says when it goes on: by then it is in the foreground again. Not from within the trap: bash forgets a
/// SIGCONT that comes while the trap for the one before still runs.
const WAKER: &str =
    "bash -c 'trap w=1 CONT; echo run''ning; while :; do sleep 0.05; ((w)) && { w=0; echo go''ing on; }; done'";

/// All stories.
pub fn all() -> Vec<Story> {
    let shell = |name, play, status| Story { name, command: SHELL, play, status };
    vec![
        shell("stop_and_go", stop_and_go, 7),
        shell("interrupts", interrupts, 0),
        shell("background", background, 0),
        shell("background_reads", background_reads, 3),
        shell("window_size", window_size, 0),
        shell("line_editing", line_editing, 0),
        shell("editor", editor, 0),
        shell("pager", pager, 0),
        shell("nested_shells", nested_shells, 0),
        shell("hang_up", hang_up, 0),
        Story { name: "python", command: &["python3", "-q"], play: python, status: 4 },
        Story { name: "node", command: &["node"], play: node, status: 0 },
        Story {
            name: "interrupted",
            command: &["sh", "-c", "echo ready; exec sleep 300"],
            play: interrupted,
            status: 130,
        },
        Story { name: "quit", command: &["sh", "-c", "echo ready; exec sleep 300"], play: quit, status: 131 },
        Story { name: "cooked_input", command: &["cat"], play: cooked_input, status: 0 },
        Story {
            name: "raw_input",
            command: &["sh", "-c", "stty raw -echo; echo ready; dd bs=1 count=5 2>/dev/null | od -An -tx1; stty sane"],
            play: raw_input,
            status: 0,
        },
    ]
}

/// Starts the sleeper in the foreground and waits until it is there.
fn sleeper(s: &mut Session) -> Played {
    s.line(SLEEPER)?;
    s.expect("running\r\n").map(|_| ())
}

fn stop_and_go(s: &mut Session) -> Played {
    settle(s)?;
    s.line(WAKER)?;
    s.expect("running\r\n")?;
    s.send(CTRL_Z)?;
    s.expect("[1]+  Stopped")?;
    s.expect(PROMPT)?;
    ask_for(s, "echo st=$?", "st=148")?;
    contains(&ask(s, "jobs")?, "[1]+  Stopped")?;
    contains(&ask(s, "bg")?, "[1]+ bash -c")?;
    contains(&ask(s, "sleep 0.2; jobs")?, "[1]+  Running")?;
    // Only a job that is stopped is told when it is in front.
    ask(s, "kill -STOP %1; sleep 0.2; jobs")?;
    s.line("fg")?;
    s.expect("done'")?;
    s.expect("going on\r\n")?;
    s.send(CTRL_Z)?;
    s.expect("Stopped")?;
    s.expect(PROMPT)?;
    s.line("fg %1")?;
    s.expect("done'")?;
    s.expect("going on\r\n")?;
    s.send(CTRL_C)?;
    s.expect(PROMPT)?;
    ask_for(s, "echo st=$?", "st=130")?;
    ask_for(s, "jobs", "")?;
    s.line("exit 7")
}

fn interrupts(s: &mut Session) -> Played {
    settle(s)?;
    // The whole foreground job, not its first process alone. (dash misses a SIGINT between fork and exec, on Linux
    // too: the inner shell speaks when that is over.)
    s.line("sh -c 'sh -c \"echo run''ning; exec sleep 300\"; echo never' | cat")?;
    s.expect("running\r\n")?;
    s.send(CTRL_C)?;
    s.expect(PROMPT)?;
    ask_for(s, "echo st=$? ${PIPESTATUS[0]}", "st=130 130")?;
    sleeper(s)?;
    s.send(CTRL_BACKSLASH)?;
    s.expect("Quit")?;
    s.expect(PROMPT)?;
    ask_for(s, "echo st=$?", "st=131")?;
    // A handler of the program's.
    s.line("bash -c 'trap \"echo caught; exit 9\" INT; echo run''ning; while :; do sleep 0.05; done'")?;
    s.expect("running\r\n")?;
    s.send(CTRL_C)?;
    s.expect("caught")?;
    s.expect(PROMPT)?;
    ask_for(s, "echo st=$?", "st=9")?;
    ask_for(s, "echo alive", "alive")?;
    s.send(CTRL_D)?;
    s.expect("exit").map(|_| ())
}

fn background(s: &mut Session) -> Played {
    settle(s)?;
    contains(&ask(s, "sleep 300 & sleep 301 &")?, "[2]")?;
    let jobs = ask(s, "jobs")?;
    contains(&jobs, "[1]-  Running")?;
    contains(&jobs, "[2]+  Running")?;
    ask(s, "kill %1; wait %1")?;
    let gone = ask(s, "jobs; echo")?;
    if gone.contains("sleep 300") && gone.contains("Running                 sleep 300 ") {
        return Err(format!("%1 still runs: {gone:?}"));
    }
    ask(s, "kill -STOP %2; sleep 0.2")?;
    contains(&ask(s, "jobs")?, "Stopped")?;
    ask(s, "kill -CONT %2; sleep 0.2")?;
    contains(&ask(s, "jobs")?, "Running")?;
    ask(s, "kill -9 %2; wait %2 2>/dev/null")?;
    ask_for(s, "(exit 5) & wait $! ; echo w=$?; true", "w=5").or_else(|text| contains(&text, "w=5"))?;
    s.line("exit")
}

fn background_reads(s: &mut Session) -> Played {
    settle(s)?;
    ask(s, "cat &")?;
    contains(&ask(s, "sleep 0.3; jobs")?, "Stopped")?;
    s.line("fg")?;
    s.expect("cat\r\n")?;
    s.line("hello")?;
    s.expect("hello\r\n")?;
    s.expect("hello\r\n")?;
    s.send(CTRL_D)?;
    s.expect(PROMPT)?;
    // Writing stops only with `tostop`.
    ask(s, "stty tostop; echo out &")?;
    contains(&ask(s, "sleep 0.3; jobs")?, "Stopped")?;
    s.line("fg")?;
    s.expect("echo out\r\n")?;
    s.expect("out\r\n")?;
    s.expect(PROMPT)?;
    ask(s, "stty -tostop")?;
    s.line("exit 3")
}

fn window_size(s: &mut Session) -> Played {
    settle(s)?;
    ask_for(s, "stty size", "24 80")?;
    s.line("bash -c 'trap \"stty size; exit\" WINCH; echo run''ning; while :; do sleep 0.05; done'")?;
    s.expect("running\r\n")?;
    s.resize(33, 101)?;
    s.expect("33 101\r\n")?;
    s.expect(PROMPT)?;
    ask_for(s, "stty size", "33 101")?;
    ask_for(s, "python3 -c 'import os; print(*os.get_terminal_size())'", "101 33")?;
    ask_for(s, "stty rows 10 cols 40; stty size", "10 40")?;
    s.line("exit 0")
}

fn line_editing(s: &mut Session) -> Played {
    settle(s)?;
    // Left three times, insert, end of line; then the same line from history.
    s.send("echo acd\x1b[D\x1b[Db\x05e\r")?;
    s.expect("\nabcde\r\n")?;
    s.expect(PROMPT)?;
    s.send("\x1b[A\r")?;
    s.expect("\nabcde\r\n")?;
    s.expect(PROMPT)?;
    // Erase and kill; completion of a name.
    s.send("garbage\x15echo wrong\x7f\x7f\x7f\x7f\x7fright\r")?;
    s.expect("\nright\r\n")?;
    s.expect(PROMPT)?;
    ask(s, "mkdir -p /tmp/complete && touch /tmp/complete/unmistakable")?;
    s.send("ls /tmp/complete/unm\t\r")?;
    s.expect("/tmp/complete/unmistakable \r\n/tmp/complete/unmistakable\r\n")?;
    s.expect(PROMPT)?;
    ask_for(s, "read -r -p '' word <<<typed; echo \"[$word]\"", "[typed]")?;
    s.line("stty -echo; echo rea''dy; read -r word; stty echo; echo \"[$word]\"")?;
    s.expect("ready\r\n")?;
    s.line("secret")?;
    let shown = s.expect("[secret]")?;
    if shown.contains("secret") {
        return Err(format!("echoes: {shown:?}"));
    }
    s.expect(PROMPT)?;
    s.line("exit")
}

fn editor(s: &mut Session) -> Played {
    settle(s)?;
    s.line("busybox vi /tmp/note")?;
    s.expect("/tmp/note")?;
    s.send("ifirst line\rsecond")?;
    s.expect("second")?;
    // What follows an escape too soon is part of it: the status line tells that it has been taken.
    s.send("\x1b")?;
    s.expect("- /tmp/note [Modified]")?;
    s.send(":wq\r")?;
    s.expect(PROMPT)?;
    ask_for(s, "cat /tmp/note", "first line\nsecond")?;
    s.line("exit")
}

fn pager(s: &mut Session) -> Played {
    settle(s)?;
    ask(s, "seq 1000 1999 >/tmp/numbers")?;
    s.line("busybox less /tmp/numbers")?;
    s.expect("1020")?;
    s.send(" ")?;
    s.expect("1040")?;
    s.send("G")?;
    s.expect("1999")?;
    s.send("q")?;
    s.expect(PROMPT)?;
    // From a pipe, with the keys from the terminal itself.
    s.line("seq 3000 3999 | more")?;
    s.expect("--More--")?;
    s.send("q")?;
    s.expect(PROMPT)?;
    s.line("exit")
}

fn nested_shells(s: &mut Session) -> Played {
    settle(s)?;
    s.line("bash --norc --noprofile -i")?;
    s.expect_any(&["$ ", "# "])?;
    s.line("PS1='@''@> '; bind 'set enable-bracketed-paste off'")?;
    s.expect("@@> ")?;
    sleeper(s)?;
    s.send(CTRL_Z)?;
    s.expect("Stopped")?;
    s.expect("@@> ")?;
    // The inner shell itself is stopped and continued as a job of the outer one.
    s.line("suspend")?;
    s.expect("Stopped")?;
    s.expect(PROMPT)?;
    s.line("fg")?;
    s.expect("@@> ")?;
    ask_inner(s, "kill -9 %1; sleep 0.2")?;
    s.line("exit")?;
    s.expect(PROMPT)?;
    s.line("exit 0")
}

fn ask_inner(s: &mut Session, line: &str) -> Played {
    s.line(line)?;
    s.expect("\n")?;
    s.expect("@@> ").map(|_| ())
}

fn hang_up(s: &mut Session) -> Played {
    settle(s)?;
    // A session of its own has no terminal; its ps shows none.
    ask_for(s, "setsid -w sh -c ': </dev/tty' 2>/dev/null; echo $?", "2")?;
    ask_for(s, ": </dev/tty; echo $?", "0")?;
    ask_for(s, "echo to the terminal >/dev/tty", "to the terminal")?;
    ask_for(s, "test -t 0 && test -t 1 && echo both", "both")?;
    ask_for(s, "echo | test -t 0 || echo pipe", "pipe")?;
    s.line("exit")
}

fn python(s: &mut Session) -> Played {
    s.expect(">>> ")?;
    s.line("6 * 7")?;
    s.expect("42")?;
    s.expect(">>> ")?;
    // Not before the line runs: readline loses what is typed while it puts the terminal back.
    // In short sleeps: a signal between the last check for one and the system call does not wake a long one.
    s.line("import time; print('on' + 'wards'); [time.sleep(0.01) for _ in iter(int, 1)]")?;
    s.expect("onwards")?;
    s.send(CTRL_C)?;
    s.expect("KeyboardInterrupt")?;
    s.expect(">>> ")?;
    s.line("input('name? ').upper()")?;
    s.expect("name? ")?;
    s.line("somebody")?;
    s.expect("'SOMEBODY'")?;
    s.expect(">>> ")?;
    s.line("raise SystemExit(4)")
}

fn node(s: &mut Session) -> Played {
    s.expect("> ")?;
    s.line("6 * 7 + ''")?;
    s.expect("'42'")?;
    s.expect("> ")?;
    s.line("await new Promise(r => setTimeout(r, 50, 'wai' + 'ted'))")?;
    s.expect("'waited'")?;
    s.expect("> ")?;
    s.send(CTRL_D)
}

fn interrupted(s: &mut Session) -> Played {
    s.expect("ready")?;
    s.send(CTRL_C)
}

fn quit(s: &mut Session) -> Played {
    s.expect("ready")?;
    s.send(CTRL_BACKSLASH)
}

fn cooked_input(s: &mut Session) -> Played {
    s.send("wrong\x15right\r")?;
    s.expect("right\r\n")?;
    s.expect("right\r\n")?;
    s.send("word one\x17two\r")?;
    s.expect("word two\r\n")?;
    // An end of file after text ends the line only.
    s.send("part")?;
    s.expect("part")?;
    s.send(CTRL_D)?;
    s.expect("part")?;
    s.send(CTRL_D)
}

fn raw_input(s: &mut Session) -> Played {
    s.expect("ready")?;
    s.send("\x03\r\x1a\x04\x7f")?;
    s.expect("03 0d 1a 04 7f").map(|_| ())
}

fn contains(text: &str, part: &str) -> Played {
    if text.contains(part) { Ok(()) } else { Err(format!("{part:?} is not in {text:?}")) }
}
