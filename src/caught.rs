//! Calls of user code that must not unwind through the store: in its own threads, and in the middle of a verb.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What `call` answers, or what its panic said.
///
/// Whatever the call changed before it panicked must be of no account: it is user code, or a thread's whole work.
pub(crate) fn caught<R>(call: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        // A payload of the user's own may panic once more when it goes.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::caught;

    #[test]
    fn a_panic_is_an_answer_whatever_it_carries() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("once more");
            }
        }
        assert_eq!(caught(|| 1), Ok(1));
        assert_eq!(caught(|| panic!("a text")), Err::<(), _>("a text".to_owned()));
        assert_eq!(caught(|| panic!("a {}", "string")), Err::<(), _>("a string".to_owned()));
        assert_eq!(caught(|| std::panic::panic_any(Bomb)), Err::<(), _>(String::new()));
    }
}
