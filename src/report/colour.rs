//! Colours of weights in a terminal, in as many colours as it has.

use super::picture::Palette;

/// How many colours the terminal shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColourDepth {
    None,
    /// The 256-colour palette.
    Palette,
    /// 24 bits.
    True,
}

impl ColourDepth {
    /// What the environment says of the terminal: `NO_COLOR`, `COLORTERM`, `TERM`.
    pub fn from_environment(is_terminal: bool) -> ColourDepth {
        let get = |name| std::env::var(name).unwrap_or_default();
        if !is_terminal || !get("NO_COLOR").is_empty() || get("TERM") == "dumb" {
            return ColourDepth::None;
        }
        match get("COLORTERM").as_str() {
            "truecolor" | "24bit" => ColourDepth::True,
            _ if get("TERM").contains("256") => ColourDepth::Palette,
            _ if get("TERM").is_empty() => ColourDepth::None,
            _ => ColourDepth::Palette,
        }
    }
}

/// The text on a background of the colour at a share of the scale.
pub fn shaded(text: &str, share: f32, palette: Palette, depth: ColourDepth) -> String {
    let [r, g, b] = palette.colour(share);
    let luminance = 0.2126 * f32::from(r) + 0.7152 * f32::from(g) + 0.0722 * f32::from(b);
    let ink = if luminance > 125.0 { 16 } else { 231 };
    match depth {
        ColourDepth::None => text.to_owned(),
        ColourDepth::True => format!("\x1b[48;2;{r};{g};{b};38;5;{ink}m{text}\x1b[0m"),
        ColourDepth::Palette => {
            let index = nearest([r, g, b]);
            format!("\x1b[48;5;{index};38;5;{ink}m{text}\x1b[0m")
        }
    }
}

/// The parameters that set a colour: of what is drawn (`38`) or behind it (`48`).
pub fn setting(layer: u8, [r, g, b]: [u8; 3], depth: ColourDepth) -> String {
    match depth {
        ColourDepth::None => String::new(),
        ColourDepth::True => format!("{layer};2;{r};{g};{b}"),
        ColourDepth::Palette => format!("{layer};5;{}", nearest([r, g, b])),
    }
}

/// Of the 256 colours, the one in their cube of 6 × 6 × 6 that is nearest.
fn nearest(colour: [u8; 3]) -> u16 {
    // The cube's levels are 0, 95, 135, 175, 215 and 255.
    let [r, g, b] = colour.map(|channel| match channel {
        0..48 => 0,
        48..115 => 1,
        _ => (u16::from(channel) - 35) / 40,
    });
    16 + 36 * r + 6 * g + b
}

/// The text, less bright.
pub fn dim(text: &str, depth: ColourDepth) -> String {
    if depth == ColourDepth::None { text.to_owned() } else { format!("\x1b[2m{text}\x1b[0m") }
}
