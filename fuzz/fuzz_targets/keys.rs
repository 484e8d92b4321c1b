//! Arbitrary bytes as keys.
#![no_main]

use exuvia::Key;
use libfuzzer_sys::fuzz_target;

fn check<K: Key>(bytes: &[u8]) -> Option<Vec<u8>> {
    let key = K::decode(bytes).ok()?;
    let mut again = Vec::new();
    key.encode(&mut again);
    assert_eq!(again, bytes, "{}", std::any::type_name::<K>());
    Some(again)
}

/// The order of the bytes is the order of the values.
fn ordered<K: Key + Ord>(left: &[u8], right: &[u8]) {
    check::<K>(left);
    check::<K>(right);
    if let (Ok(a), Ok(b)) = (K::decode(left), K::decode(right)) {
        assert_eq!(a.cmp(&b), left.cmp(right), "{}", std::any::type_name::<K>());
    }
}

fuzz_target!(|input: (&[u8], &[u8])| {
    let (a, b) = input;
    ordered::<u8>(a, b);
    ordered::<i8>(a, b);
    ordered::<u32>(a, b);
    ordered::<i64>(a, b);
    ordered::<i128>(a, b);
    ordered::<bool>(a, b);
    ordered::<char>(a, b);
    ordered::<String>(a, b);
    ordered::<Vec<u8>>(a, b);
    ordered::<[u8; 5]>(a, b);
    ordered::<Option<String>>(a, b);
    ordered::<Option<Option<i16>>>(a, b);
    ordered::<(String, u32)>(a, b);
    ordered::<(Vec<u8>, Option<Vec<u8>>, bool)>(a, b);
    ordered::<(u8, (String, String), i8, char)>(a, b);
    for bytes in [a, b] {
        check::<f32>(bytes);
        check::<f64>(bytes);
        check::<(f64, String)>(bytes);
    }
});
