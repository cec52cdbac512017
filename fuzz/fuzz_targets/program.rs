//! Any bytes give faults or a program, and a program comes through the wire unchanged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pellucid_fuzz::timed;
use pellucid_graph::Program;

fuzz_target!(|bytes: &[u8]| timed(|| {
    match Program::from_bytes(bytes) {
        Ok(program) => {
            let written = program.to_bytes().expect("what was read can be written");
            assert_eq!(Program::from_bytes(&written).as_ref(), Ok(&program));
            assert_eq!(
                Program::from_json(program.to_json_pretty().as_bytes()).is_ok(),
                program.constants.is_empty()
            );
        }
        Err(faults) => assert!(!faults.is_empty() && !faults.to_string().is_empty()),
    }
}));
