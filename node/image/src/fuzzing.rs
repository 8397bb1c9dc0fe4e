//! What a fuzzer calls and what the tests replay: the parsers of what the host and its network hand to
//! the image's first process.
//!
//! Owns: what must hold for any input, and the inputs that a run starts from.
//! Must not: parse anything itself, or be in the image.

use super::dhcp::{self, Lease, Question};
use super::model::{ModelPin, model_option};
use super::operator::{self, SETTINGS};

const TRANSACTION: u32 = 7;
const HARDWARE: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// An answer from the network, the kernel's command line, and the operator's disk: any input is read
/// as each of them.
pub(crate) fn host_inputs(data: &[u8]) {
    if let Some((_, Some(lease))) = dhcp::answer(data, TRANSACTION, HARDWARE) {
        usable(&lease);
    }
    if let Ok(operator) = operator::parse(data) {
        for flag in &operator.flags {
            let flag = flag.to_str().unwrap_or_default();
            let setting = flag.strip_prefix("--").and_then(|flag| flag.split_once('='));
            let known = setting.is_some_and(|(key, _)| SETTINGS.contains(&key));
            assert!(known, "a flag that the operator may not set: {flag}");
            assert!(!flag.chars().any(char::is_control), "a flag of two lines");
        }
        assert!(!operator.words.is_some_and(|words| words.contains('\n')), "words of two lines");
    }
    let Ok(line) = std::str::from_utf8(data) else { return };
    if let Some(option) = model_option(line)
        && let Ok(pin) = option.parse::<ModelPin>()
    {
        assert!(option.bytes().all(|byte| byte.is_ascii_graphic()), "a pin of two words");
        let length = option.split(',').nth(1).unwrap_or_default();
        let number = length.parse::<u64>().map(|number| number.to_string());
        assert_eq!(number.as_deref(), Ok(length), "two spellings of one length");
        let name = pin.name();
        assert!((1..=64).contains(&name.len()), "a name that is no file's");
        assert!(!name.contains('/') && !name.starts_with('.'), "a name that leads elsewhere");
    }
}

/// The machine takes this lease: nothing in it may be an address of nobody or of many.
fn usable(lease: &Lease) {
    let address = lease.address;
    assert!(!address.is_unspecified() && !address.is_broadcast(), "nobody's address");
    assert!(!address.is_loopback() && !address.is_multicast(), "nobody's address");
    assert!(lease.prefix <= 32 && lease.name_servers.len() <= 3);
    for question in [Question::Discover, Question::Request(lease), Question::Renew(lease)] {
        let message = dhcp::question(question, TRANSACTION, HARDWARE);
        assert!(dhcp::answer(&message, TRANSACTION, HARDWARE).is_none(), "a question is no answer");
    }
}

/// Inputs that are understood.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut answer = dhcp::question(Question::Discover, TRANSACTION, HARDWARE);
    answer.truncate(240);
    if let Some(kind) = answer.first_mut() {
        *kind = 2;
    }
    if let Some(address) = answer.get_mut(16..20) {
        address.copy_from_slice(&[10, 0, 2, 15]);
    }
    let options: [&[u8]; 6] = [
        &[53, 1, 2, 0],
        &[54, 4, 10, 0, 2, 2],
        &[1, 4, 255, 255, 255, 0],
        &[3, 4, 10, 0, 2, 2],
        &[6, 8, 10, 0, 2, 3, 10, 0, 2, 4],
        &[51, 4, 0, 1, 0x51, 0x80, 255],
    ];
    answer.extend(options.concat());
    let mut acknowledged = answer.clone();
    if let Some(kind) = acknowledged.get_mut(242) {
        *kind = 5;
    }
    let hash = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    let line = format!("initrd=initrd quiet cocoon.model=smollm2-135m,93,{hash} -- --provide");
    let disk = "# mine\nwords = one two\n\nprompt-price = 0.02 TON\nregion=eu\n\0\0";
    vec![answer, acknowledged, line.into_bytes(), disk.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_understood() {
        let [offer, acknowledged, line, disk] = &seeds()[..] else { panic!("no seeds") };
        for answer in [offer, acknowledged] {
            let (_, lease) = dhcp::answer(answer, TRANSACTION, HARDWARE).unwrap();
            assert_eq!(lease.unwrap().name_servers.len(), 2);
        }
        let option = model_option(std::str::from_utf8(line).unwrap()).unwrap();
        assert_eq!(option.parse::<ModelPin>().unwrap().name(), "smollm2-135m");
        assert_eq!(operator::parse(disk).unwrap().flags.len(), 2);
    }

    #[test]
    fn every_input_of_the_corpus_and_every_altered_seed_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/host_inputs");
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            host_inputs(&std::fs::read(entry.unwrap().path()).unwrap());
        }
        for seed in seeds() {
            host_inputs(&seed);
            for at in 0..seed.len() {
                host_inputs(&seed[..at]);
                for mask in [1, 0x41, 0xff] {
                    let mut altered = seed.clone();
                    altered[at] ^= mask;
                    host_inputs(&altered);
                }
            }
        }
    }
}
