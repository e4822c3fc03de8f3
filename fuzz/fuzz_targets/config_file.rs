#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| signaling_worker::fuzzing::config_file(data));
