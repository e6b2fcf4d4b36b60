//! What the served page asks for: the page itself, tiles of pictures, and exact rows and columns.

use super::document::Page;
use super::maps::MEAN;
use super::survey::pictures;
use super::tile::{Place, hide, levels, tile};

/// A body and its media type.
pub struct Answer {
    pub media_type: &'static str,
    pub body: Vec<u8>,
}

const BYTES: &str = "application/octet-stream";

/// The answer to a request's target, such as `/row?layer=1&head=0&query=3`; `None` where nothing is.
///
/// `/projections` answers a layer's queries, keys and values; `/pictures` the small pictures of all
/// heads without the first keys, as bytes `[heads, side, side, 2]`; `/tile` bytes `[256, 256, 2]`;
/// `/row` and `/column` f32, little-endian, exactly as in the dump: a weight for every position. `head`
/// is `mean` for the mean over a layer's captured heads.
pub fn answer(page: &Page, target: &str) -> Option<Answer> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let number = |name: &str| -> Option<usize> {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(known, _)| *known == name).find_map(|(_, value)| value.parse().ok())
    };
    if path == "/" {
        return Some(Answer { media_type: "text/html; charset=utf-8", body: page.served().into_bytes() });
    }
    if path == "/projections" {
        let rows = page.projections(number("layer")?)?;
        return Some(Answer {
            media_type: BYTES,
            body: rows.iter().flat_map(|value| value.to_le_bytes()).collect(),
        });
    }
    let maps = page.maps(number("maps").unwrap_or(0))?;
    if path == "/pictures" {
        return Some(Answer { media_type: BYTES, body: pictures(maps, number("hide")?) });
    }
    let head = if query.split('&').any(|pair| pair == "head=mean") { MEAN } else { number("head")? };
    let head = maps.find(number("layer")?, head)?;
    let size = maps.size();
    let floats = |weights: &[f32]| weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let body = match path {
        "/tile" => {
            let level = u32::try_from(number("level")?).ok().filter(|level| *level < levels(size))?;
            let place = Place { level, row: number("row")?, column: number("column")? };
            if place.row.max(place.column) >= size {
                return None;
            }
            tile(maps, head, place, number("hide").unwrap_or(0))
        }
        "/row" => {
            let mut row = vec![0f32; size];
            maps.row(head, number("query").filter(|query| *query < size)?, 0, &mut row);
            floats(&row)
        }
        "/column" => {
            let key = number("key").filter(|key| *key < size)?;
            let mut column = vec![0f32; size];
            for (query, weight) in column.iter_mut().enumerate() {
                maps.row(head, query, key, std::slice::from_mut(weight));
                *weight *= hide(maps, head, query, number("hide").unwrap_or(0), key, &mut []);
            }
            floats(&column)
        }
        _ => return None,
    };
    Some(Answer { media_type: BYTES, body })
}
