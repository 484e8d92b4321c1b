//! How differences read, and what is the same bytes.

use super::*;

macro_rules! types {
    ($($name:ident $body:tt)*) => {$(
        #[derive(Serialize, Deserialize)]
        struct $name $body
    )*};
}

types! {
    User { name: String, age: u8 }
    UserV1 { name: String, age: u8 }
    Wider { name: String, age: u64 }
    Longer { name: String, age: u8, mail: Option<String> }
    Before { id: u8, name: String, age: u8 }
    Shorter { name: String }
    Swapped { age: u8, name: String }
    Renamed { full_name: String, age: u8 }
    Aliased { #[serde(alias = "name")] full_name: String, age: u8 }
    Nested { user: Option<Vec<Wider>> }
    NestedBefore { user: Option<Vec<User>> }
}

#[derive(Serialize, Deserialize)]
enum Kind {
    A,
    B(u8),
}

mod later {
    use super::*;
    #[derive(Serialize, Deserialize)]
    pub(super) enum Kind {
        A,
        B(u16),
        C,
    }
}

fn difference<A, B>() -> String
where
    A: Serialize + DeserializeOwned + Send + Sync + 'static,
    B: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let (before, now) = (shape::<A>(), shape::<B>());
    assert_ne!(before.fingerprint(), now.fingerprint());
    before.difference(&now).unwrap()
}

#[test]
fn the_name_of_a_type_does_not_count() {
    let (before, now) = (shape::<UserV1>(), shape::<User>());
    assert_ne!(before, now);
    assert_eq!(before.fingerprint(), now.fingerprint());
    assert_eq!(before.difference(&now), None);
}

#[test]
fn differences_are_named() {
    assert_eq!(difference::<User, Wider>(), "field `age` of Wider: u8 before, u64 now");
    assert_eq!(difference::<User, Longer>(), "field `mail` of Longer: added after `age`");
    assert_eq!(difference::<User, Before>(), "field `id` of Before: added as the first");
    assert_eq!(difference::<User, Shorter>(), "field `age` of Shorter: removed");
    assert_eq!(difference::<User, Swapped>(), "the fields of Swapped: another order now (age, name)");
    assert_eq!(difference::<User, Renamed>(), "field `name` of Renamed: is now `full_name`");
    assert_eq!(difference::<NestedBefore, Nested>(), "field `age` of Wider: u8 before, u64 now");
    assert_eq!(
        difference::<Kind, later::Kind>(),
        "variant `C` of Kind: added after `B`; the content of `B`: u8 before, u16 now"
    );
    assert_eq!(difference::<u8, Kind>(), "the record: u8 before, Kind now");
    assert!(
        difference::<[u8; 7], (u8, u16, u32, u64, i8, i16, i32)>().starts_with("the record: [u8; 7] before")
    );
}

#[test]
fn an_alias_makes_a_rename_harmless() {
    assert_eq!(shape::<User>().difference(&shape::<Aliased>()), None);
    assert_eq!(shape::<Aliased>().difference(&shape::<Renamed>()), None);
    assert!(shape::<User>().layout_eq(&shape::<Aliased>()));
}

#[test]
fn layout_ignores_names_and_groups() {
    macro_rules! same {
        ($($a:ty, $b:ty;)*) => {$( assert!(shape::<$a>().layout_eq(&shape::<$b>()), "{}", text::<$a>()); )*};
    }
    macro_rules! other {
        ($($a:ty, $b:ty;)*) => {$( assert!(!shape::<$a>().layout_eq(&shape::<$b>()), "{}", text::<$a>()); )*};
    }
    same! {
        User, UserV1;
        User, Renamed;
        User, (String, u8);
        (User, u8), (String, [u8; 2]);
        (u8, (u8, ())), [u8; 2];
        BTreeMap<u8, String>, Vec<(u8, String)>;
        Option<(User,)>, Option<UserV1>;
        Kind, Kind;
    }
    other! {
        User, Wider;
        User, Longer;
        User, Swapped;
        Kind, later::Kind;
        Option<u8>, Vec<u8>;
        String, Vec<u8>;
        [u8; 2], [u8; 3];
    }
}

#[test]
fn recursive_layouts_are_compared_to_the_end() {
    #[derive(Serialize, Deserialize)]
    struct Node {
        next: Option<Box<Node>>,
        at: u8,
    }
    #[derive(Serialize, Deserialize)]
    struct Chain(Option<Box<(Option<Box<Chain>>, u8)>>, u8);
    #[derive(Serialize, Deserialize)]
    struct Other(Option<Box<(Option<Box<Other>>, i8)>>, u8);
    assert!(shape::<Node>().layout_eq(&shape::<Chain>()));
    assert!(!shape::<Node>().layout_eq(&shape::<Other>()));
    assert_eq!(shape::<Node>().difference(&shape::<Node>()), None);
}

#[test]
fn damaged_shapes_do_no_harm() {
    let named = |index| ShapeNode::Named(index);
    let body = ShapeBody::Tuple(vec![named(0), named(0), named(9)]);
    let types = vec![ShapeType { name: "Loop".into(), body }];
    let broken = Shape { root: named(0), types };
    assert!(!broken.layout_eq(&broken.clone()));
    assert!(broken.difference(&shape::<User>()).is_some());
    assert!(broken.to_string().contains("#9"));
    assert!(!Shape { root: named(3), types: vec![] }.layout_eq(&broken));
}
