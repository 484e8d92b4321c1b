//! Types that need a sample or a description, and what the error says without.

use super::*;

#[derive(Serialize, Deserialize, Clone)]
#[serde(try_from = "String", into = "String")]
struct Mail(String);

impl TryFrom<String> for Mail {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text.contains('@') { Ok(Mail(text)) } else { Err(format!("{text:?} has no @")) }
    }
}

impl From<Mail> for String {
    fn from(mail: Mail) -> Self {
        mail.0
    }
}

#[derive(Serialize, Deserialize)]
enum Role {
    Guest,
    Member { mail: Option<Mail>, level: Level },
    Admin(Box<Mail>),
}

#[derive(Serialize, Deserialize)]
enum Level {
    Low,
    High(u8),
}

#[derive(Serialize, Deserialize)]
struct User {
    mail: Mail,
    role: Role,
    friends: Vec<Mail>,
}

const USER: &str = "struct User { mail: String, role: Role, friends: Vec<String> }; \
     enum Role { Guest, Member { mail: Option<String>, level: Level }, Admin(String) }; enum Level { Low, High(u8) }";

macro_rules! tell {
    ($name:ident, $describe:ident, $told:expr) => {
        struct $name;
        impl<T> Tell<T> for $name {
            fn tell($describe: &mut Describe) {
                $told;
            }
        }
    };
}

fn mail() -> Mail {
    Mail("a@b".into())
}

#[test]
fn the_error_says_where_why_and_what_to_do() {
    let error = try_shape::<(u8, User)>().unwrap_err();
    for part in ["at `1.mail`", "\"\" has no @", "`sample`", "`explicit`", "the field `role` of `User`"] {
        assert!(error.message().contains(part), "{part} is not in: {error}");
    }
}

#[test]
fn one_sample_of_the_checked_type_is_enough() {
    tell!(Sample, describe, describe.sample(&mail()));
    assert_eq!(Shape::of::<Of<User, Sample>>().unwrap().to_string(), USER);
}

#[test]
fn so_is_one_of_the_record() {
    tell!(Record, describe, describe.sample(&User { mail: mail(), role: Role::Guest, friends: vec![] }));
    assert_eq!(Shape::of::<Of<User, Record>>().unwrap().to_string(), USER);
}

#[test]
fn a_check_over_several_fields_needs_a_sample_of_them() {
    #[derive(Serialize, Deserialize, Clone)]
    #[serde(try_from = "(u8, u8)", into = "(u8, u8)")]
    struct Ordered(u8, u8);
    impl TryFrom<(u8, u8)> for Ordered {
        type Error = &'static str;
        fn try_from((a, b): (u8, u8)) -> Result<Self, &'static str> {
            if a < b { Ok(Ordered(a, b)) } else { Err("not in order") }
        }
    }
    impl From<Ordered> for (u8, u8) {
        fn from(it: Ordered) -> Self {
            (it.0, it.1)
        }
    }
    tell!(Sample, describe, describe.sample(&Ordered(1, 2)));
    type Record = (Ordered, Level);
    assert!(try_shape::<Record>().is_err());
    let shape = Shape::of::<Of<Record, Sample>>().unwrap();
    assert_eq!(shape.to_string(), "([u8; 2], Level,); enum Level { Low, High(u8) }");
}

#[test]
fn a_with_attribute_is_seen_through_or_sampled() {
    mod even {
        pub(super) fn serialize<S: serde::Serializer>(it: &u32, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_u64(u64::from(*it))
        }
        pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
            deserializer: D,
        ) -> Result<u32, D::Error> {
            let it = <u64 as serde::Deserialize>::deserialize(deserializer)?;
            if it % 2 == 0 {
                u32::try_from(it).map_err(serde::de::Error::custom)
            } else {
                Err(serde::de::Error::custom("odd"))
            }
        }
    }
    #[derive(Serialize, Deserialize)]
    struct With {
        #[serde(with = "even")]
        even: u32,
        level: Level,
    }
    tell!(Sample, describe, describe.sample(&With { even: 2, level: Level::Low }).trace::<Level>());
    assert!(try_shape::<With>().unwrap_err().message().contains("at `even`: odd"));
    assert_eq!(
        Shape::of::<Of<With, Sample>>().unwrap().to_string(),
        "struct With { even: u64, level: Level }; enum Level { Low, High(u8) }"
    );
}

#[test]
fn self_describing_types_take_a_description() {
    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u8),
        Text(String),
    }
    #[derive(Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        level: BTreeMap<String, u8>,
    }
    #[derive(Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        One { at: u8 },
    }
    for error in [
        try_shape::<Untagged>(),
        try_shape::<Flat>(),
        try_shape::<Tagged>(),
        try_shape::<serde_json::Value>(),
    ] {
        let error = error.unwrap_err();
        assert!(
            error.message().contains("bincode cannot answer") && error.message().contains("explicit"),
            "{error}"
        );
    }
    tell!(Explicit, describe, describe.explicit("JSON, version 1"));
    let shape = Shape::of::<Of<serde_json::Value, Explicit>>().unwrap();
    assert_eq!(shape.root(), &ShapeNode::Explicit("JSON, version 1".into()));
}

#[test]
fn endless_types_are_an_error() {
    #[derive(Serialize, Deserialize)]
    struct Endless(Box<Endless>);
    #[derive(Serialize, Deserialize)]
    enum Both {
        A(Box<Both>),
        B(Box<Both>),
    }
    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Tree(Vec<Tree>);
    assert!(try_shape::<Endless>().unwrap_err().message().contains("contains itself"));
    assert!(try_shape::<Both>().unwrap_err().message().contains("contains the enum itself"));
    assert!(try_shape::<Tree>().is_err());
    assert_eq!(text::<Origin>(), "enum Origin {  }");
}
