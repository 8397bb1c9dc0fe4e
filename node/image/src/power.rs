//! The power button, by which a host asks a machine to end.
//!
//! Owns: how long the node has to end. Must not: end a node that is busy without asking.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{say, turn_off};

/// The node finishes its jobs and settles; then the machine goes off anyway.
const DEADLINE: Duration = Duration::from_secs(120);
/// `struct input_event` on 64 bits: two words of time, then type, code and value.
const EVENT_BYTES: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// Watches every button there is; the first press asks the process to end.
pub(crate) fn watch(process: u32) {
    let buttons: Vec<PathBuf> = std::fs::read_dir("/dev/input")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("event"))
        })
        .collect();
    if buttons.is_empty() {
        say("this machine has no power button: it ends with its host's process only");
    }
    for button in buttons {
        std::thread::spawn(move || {
            let Ok(mut events) = File::open(button) else {
                return;
            };
            let mut event = [0; EVENT_BYTES];
            while events.read_exact(&mut event).is_ok() {
                if is_press(&event) {
                    end(process);
                }
            }
        });
    }
}

fn is_press(event: &[u8; EVENT_BYTES]) -> bool {
    let [.., t0, t1, c0, c1, v0, v1, v2, v3] = *event;
    u16::from_le_bytes([t0, t1]) == EV_KEY
        && u16::from_le_bytes([c0, c1]) == KEY_POWER
        && i32::from_le_bytes([v0, v1, v2, v3]) == 1
}

fn end(process: u32) {
    say("the power button was pressed: the node is asked to end");
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    if let Some(process) = process {
        // A node that is gone already is what was asked for.
        let _ = kill_process(process, Signal::TERM);
    }
    std::thread::sleep(DEADLINE);
    say("the node did not end in time");
    turn_off();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> [u8; EVENT_BYTES] {
        let mut event = [0xaa; EVENT_BYTES];
        event[16..18].copy_from_slice(&kind.to_le_bytes());
        event[18..20].copy_from_slice(&code.to_le_bytes());
        event[20..].copy_from_slice(&value.to_le_bytes());
        event
    }

    #[test]
    fn only_a_press_of_the_power_button_counts() {
        assert!(is_press(&event(EV_KEY, KEY_POWER, 1)));
        assert!(!is_press(&event(EV_KEY, KEY_POWER, 0)));
        assert!(!is_press(&event(EV_KEY, 30, 1)));
        assert!(!is_press(&event(0, KEY_POWER, 1)));
    }
}
