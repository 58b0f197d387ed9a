// Colours of numbers, which people with any kind of colour vision tell apart: Crameri's vik and berlin (diverging, light
// and dark in the middle) and matplotlib's viridis. Pure.

const STOPS = {
  vik: '001261 033e7d 1e6f9d 71a8c4 c9dde7 ece5e0 eacebd d39774 be6533 8b2706 590008',
  berlin: '9eb0ff 5aa4da 2d7597 1a4255 11191e 28110c 501803 8a3f2a c4756a ffadad',
  viridis: '440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725',
} as const;

export type Map = keyof typeof STOPS;

/** 256 colours, as bytes of red, green and blue. */
export function table(map: Map): Uint8Array {
  const stops = STOPS[map].split(' ').map((text) => [0, 2, 4].map((at) => parseInt(text.slice(at, at + 2), 16)));
  const colours = new Uint8Array(3 * 256);
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (stops.length - 1);
    const [low, part] = [Math.min(Math.floor(place), stops.length - 2), place - Math.min(Math.floor(place), stops.length - 2)];
    for (let c = 0; c < 3; c++) colours[3 * i + c] = Math.round(stops[low]![c]! * (1 - part) + stops[low + 1]![c]! * part);
  }
  return colours;
}

/** From numbers to colours: a map, and the numbers of its ends. */
export interface Scale {
  map: Map;
  low: number;
  high: number;
}

/** The scale of numbers between two: around 0 where there are both signs. */
export function scaleOf(least: number, greatest: number, isDark: boolean): Scale {
  if (!(least <= greatest)) return { map: 'viridis', low: 0, high: 1 };
  if (least < 0 && greatest > 0) {
    const most = Math.max(-least, greatest);
    return { map: isDark ? 'berlin' : 'vik', low: -most, high: most };
  }
  return { map: 'viridis', low: least, high: greatest };
}

/** The place of a number in a table of 256. */
export function shade({ low, high }: Scale, value: number): number {
  if (high <= low) return value > high ? 255 : value < low ? 0 : 128;
  const part = value / (high - low) - low / (high - low); // which does not overflow
  return Math.max(0, Math.min(255, Math.round(part * 255)));
}
