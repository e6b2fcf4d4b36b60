//! Colours of weights in a terminal: cividis (Nuñez et al. 2018), which people with any colour
//! vision read alike, in as many colours as the terminal has.

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

/// Cividis at 0, ¼, ½, ¾ and 1.
const CIVIDIS: [[f32; 3]; 5] = [
    [0.0, 32.0, 77.0],
    [64.0, 77.0, 107.0],
    [124.0, 123.0, 120.0],
    [187.0, 173.0, 108.0],
    [255.0, 234.0, 70.0],
];

/// The colour of a weight in 0..=1, as red, green, blue.
pub fn cividis(weight: f32) -> [u8; 3] {
    let at = weight.clamp(0.0, 1.0) * (CIVIDIS.len() - 1) as f32;
    let low = (at as usize).min(CIVIDIS.len() - 2);
    let share = at - low as f32;
    std::array::from_fn(|channel| {
        (CIVIDIS[low][channel] * (1.0 - share) + CIVIDIS[low + 1][channel] * share).round() as u8
    })
}

/// The text on a background of a weight's colour.
pub fn shaded(text: &str, weight: f32, depth: ColourDepth) -> String {
    let [r, g, b] = cividis(weight);
    let ink = if weight > 0.55 { 16 } else { 231 };
    match depth {
        ColourDepth::None => text.to_owned(),
        ColourDepth::True => format!("\x1b[48;2;{r};{g};{b};38;5;{ink}m{text}\x1b[0m"),
        ColourDepth::Palette => {
            let level = |channel: u8| (u16::from(channel) * 5 + 127) / 255;
            let index = 16 + 36 * level(r) + 6 * level(g) + level(b);
            format!("\x1b[48;5;{index};38;5;{ink}m{text}\x1b[0m")
        }
    }
}

/// The text, less bright.
pub fn dim(text: &str, depth: ColourDepth) -> String {
    if depth == ColourDepth::None { text.to_owned() } else { format!("\x1b[2m{text}\x1b[0m") }
}
