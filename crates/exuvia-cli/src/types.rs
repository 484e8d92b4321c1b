//! The airport's lineage: v1 as the source publishes it, v2 with numbers, v3 with a name in parts.
//!
//! Each version is the previous one in another form plus one field of its own. Hence the shape of every `merge`
//! here: upcast what the old writer wrote, then put back the field that it could not see. That satisfies the
//! four laws of [`Version`] as soon as upcast and downcast are exact inverses, which `laws.rs` checks on every
//! record of the data set.

use exuvia::{CastError, Origin, Version};
use serde::{Deserialize, Serialize};

use crate::decimal::{Decimal, Metres};

/// Version 1: everything is text, as in the source's table; heights are feet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AirportV1 {
    pub(crate) icao: String,
    pub(crate) iata: String,
    pub(crate) lid: String,
    pub(crate) name: String,
    pub(crate) city: String,
    pub(crate) subd: String,
    pub(crate) country: String,
    /// Feet; empty if not known.
    pub(crate) elevation_ft: String,
    /// Degrees, north positive.
    pub(crate) lat: String,
    /// Degrees, east positive.
    pub(crate) lon: String,
    pub(crate) tz: String,
    /// Free text; the demo fills records up to the wanted size with it.
    pub(crate) note: String,
}

/// Version 2: coordinates are numbers, heights are metres, and runways are counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AirportV2 {
    pub(crate) icao: String,
    pub(crate) iata: String,
    pub(crate) lid: String,
    pub(crate) name: String,
    pub(crate) city: String,
    pub(crate) subd: String,
    pub(crate) country: String,
    pub(crate) elevation: Option<Metres>,
    pub(crate) lat: Decimal,
    pub(crate) lon: Decimal,
    pub(crate) tz: String,
    pub(crate) note: String,
    /// New in this version: how many runways there are, if somebody counted.
    pub(crate) runways: Option<u16>,
}

/// Version 3: the name is in parts, the place is a value of its own, and the year of opening is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AirportV3 {
    pub(crate) icao: String,
    pub(crate) iata: String,
    pub(crate) lid: String,
    /// The name without the word that says what it is.
    pub(crate) name_core: String,
    /// What that word said.
    pub(crate) kind: Kind,
    pub(crate) place: Place,
    pub(crate) elevation: Option<Metres>,
    pub(crate) lat: Decimal,
    pub(crate) lon: Decimal,
    pub(crate) tz: String,
    pub(crate) note: String,
    pub(crate) runways: Option<u16>,
    /// New in this version: the year of opening, if somebody looked it up.
    pub(crate) opened: Option<u16>,
}

/// Where an airport is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) city: String,
    pub(crate) subdivision: String,
    pub(crate) country: String,
}

/// What the last word of a name says the place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Aerodrome,
    AirBase,
    Airfield,
    Airpark,
    Airport,
    Airstrip,
    Field,
    Heliport,
    SeaplaneBase,
    Strip,
    /// None of these: the core is the whole name.
    Other,
}

/// Every kind but [`Kind::Other`] with its words. None ends another, so that a name has one kind.
const ENDINGS: [(Kind, &str); 10] = [
    (Kind::Aerodrome, " Aerodrome"),
    (Kind::AirBase, " Air Base"),
    (Kind::Airfield, " Airfield"),
    (Kind::Airpark, " Airpark"),
    (Kind::Airport, " Airport"),
    (Kind::Airstrip, " Airstrip"),
    (Kind::Field, " Field"),
    (Kind::Heliport, " Heliport"),
    (Kind::SeaplaneBase, " Seaplane Base"),
    (Kind::Strip, " Strip"),
];

/// Takes a name apart.
fn split_name(mut name: String) -> (String, Kind) {
    for (kind, ending) in ENDINGS {
        if let Some(core) = name.strip_suffix(ending) {
            let length = core.len();
            name.truncate(length);
            return (name, kind);
        }
    }
    (name, Kind::Other)
}

/// Puts a name together again. Fails if it would be taken apart in another way.
fn join_name(core: &str, kind: Kind) -> Result<String, CastError> {
    let ending = ENDINGS.iter().find(|(k, _)| *k == kind).map_or("", |(_, ending)| ending);
    let name = format!("{core}{ending}");
    match split_name(name.clone()) {
        (_, found) if found == kind => Ok(name),
        (_, found) => {
            Err(CastError::new(format!("the name {name:?} is of the kind {found:?}, not {kind:?}")))
        }
    }
}

/// Reads a coordinate of at most `limit` degrees either way.
pub(crate) fn degrees(what: &str, text: &str, limit: u32) -> Result<Decimal, CastError> {
    let number = Decimal::parse(text).map_err(|e| CastError::new(format!("{what}: {e}")))?;
    if number.within(limit) {
        Ok(number)
    } else {
        Err(CastError::new(format!("{what}: {text} degrees are beyond ±{limit}")))
    }
}

/// Reads a height in feet; an empty text is a height that nobody knows.
pub(crate) fn height(text: &str) -> Result<Option<Metres>, CastError> {
    if text.is_empty() {
        return Ok(None);
    }
    Metres::from_feet(text).map(Some).map_err(|e| CastError::new(format!("elevation: {e}")))
}

/// The rule that binds writers of numbers: a latitude and a longitude exist.
fn validate_position(lat: &Decimal, lon: &Decimal) -> Result<(), CastError> {
    if lat.within(90) && lon.within(180) {
        Ok(())
    } else {
        Err(CastError::new("the position is beyond ±90 degrees of latitude or ±180 of longitude"))
    }
}

impl Version for AirportV1 {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(previous: Origin) -> Result<Self, CastError> {
        previous.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Version for AirportV2 {
    const VERSION: u32 = 2;
    type Previous = AirportV1;

    fn upcast(v1: AirportV1) -> Result<Self, CastError> {
        Ok(Self {
            elevation: height(&v1.elevation_ft)?,
            lat: degrees("latitude", &v1.lat, 90)?,
            lon: degrees("longitude", &v1.lon, 180)?,
            icao: v1.icao,
            iata: v1.iata,
            lid: v1.lid,
            name: v1.name,
            city: v1.city,
            subd: v1.subd,
            country: v1.country,
            tz: v1.tz,
            note: v1.note,
            runways: None,
        })
    }

    fn downcast(&self, _last: Option<AirportV1>) -> Result<AirportV1, CastError> {
        Ok(AirportV1 {
            icao: self.icao.clone(),
            iata: self.iata.clone(),
            lid: self.lid.clone(),
            name: self.name.clone(),
            city: self.city.clone(),
            subd: self.subd.clone(),
            country: self.country.clone(),
            elevation_ft: self.elevation.map_or(Ok(String::new()), |m| m.feet())?,
            lat: self.lat.text()?,
            lon: self.lon.text()?,
            tz: self.tz.clone(),
            note: self.note.clone(),
        })
    }

    fn merge(v1: AirportV1, last: Self) -> Result<Option<Self>, CastError> {
        Ok(Some(Self { runways: last.runways, ..Self::upcast(v1)? }))
    }

    fn validate(&self) -> Result<(), CastError> {
        validate_position(&self.lat, &self.lon)
    }
}

impl Version for AirportV3 {
    const VERSION: u32 = 3;
    type Previous = AirportV2;

    fn upcast(v2: AirportV2) -> Result<Self, CastError> {
        let (name_core, kind) = split_name(v2.name);
        Ok(Self {
            icao: v2.icao,
            iata: v2.iata,
            lid: v2.lid,
            name_core,
            kind,
            place: Place { city: v2.city, subdivision: v2.subd, country: v2.country },
            elevation: v2.elevation,
            lat: v2.lat,
            lon: v2.lon,
            tz: v2.tz,
            note: v2.note,
            runways: v2.runways,
            opened: None,
        })
    }

    fn downcast(&self, _last: Option<AirportV2>) -> Result<AirportV2, CastError> {
        Ok(AirportV2 {
            icao: self.icao.clone(),
            iata: self.iata.clone(),
            lid: self.lid.clone(),
            name: join_name(&self.name_core, self.kind)?,
            city: self.place.city.clone(),
            subd: self.place.subdivision.clone(),
            country: self.place.country.clone(),
            elevation: self.elevation,
            lat: self.lat,
            lon: self.lon,
            tz: self.tz.clone(),
            note: self.note.clone(),
            runways: self.runways,
        })
    }

    fn merge(v2: AirportV2, last: Self) -> Result<Option<Self>, CastError> {
        Ok(Some(Self { opened: last.opened, ..Self::upcast(v2)? }))
    }

    fn validate(&self) -> Result<(), CastError> {
        validate_position(&self.lat, &self.lon)
    }
}

/// The version at which a caller reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum View {
    V1,
    V2,
    V3,
}

impl std::fmt::Display for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            View::V1 => "v1",
            View::V2 => "v2",
            View::V3 => "v3",
        })
    }
}

/// An airport at some view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Airport {
    V1(AirportV1),
    V2(AirportV2),
    V3(AirportV3),
}

impl Airport {
    /// The view at which this is a record.
    pub(crate) fn view(&self) -> View {
        match self {
            Airport::V1(_) => View::V1,
            Airport::V2(_) => View::V2,
            Airport::V3(_) => View::V3,
        }
    }

    /// The code, which is the same at every view.
    pub(crate) fn icao(&self) -> &str {
        match self {
            Airport::V1(airport) => &airport.icao,
            Airport::V2(airport) => &airport.icao,
            Airport::V3(airport) => &airport.icao,
        }
    }
}
