//! Arbitrary bytes as records and keys of arbitrary shapes and types, shown as JSON and read back.
#![no_main]

use exuvia::json;
use exuvia::shape::{KeyType, Shape};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input {
    /// A shape as the catalog stores it.
    shape: Vec<u8>,
    key: String,
    bytes: Vec<u8>,
    text: String,
}

fuzz_target!(|input: Input| {
    let value = serde_json::from_str(&input.text).unwrap_or_default();
    if let Ok(shape) = exuvia::codec::decode::<Shape>(&input.shape) {
        if let Ok(shown) = json::decode(&shape, &input.bytes) {
            // A damaged shape may have two variants or fields of one name; a whole one shows everything.
            if let Ok(again) = json::encode(&shape, &shown) {
                let _ = json::decode(&shape, &again);
            }
        }
        let _ = json::encode(&shape, &value);
    }
    if let Ok(key) = input.key.parse::<KeyType>() {
        if let Ok(shown) = json::decode_key(&key, &input.bytes) {
            assert_eq!(json::encode_key(&key, &shown).unwrap(), input.bytes, "{key} {shown}");
        }
        if let Ok(bytes) = json::encode_key(&key, &value) {
            json::decode_key(&key, &bytes).unwrap();
        }
        let _ = json::key_of_text(&key, &input.text);
    }
});
