export type * from './api.js';
export { isTensor } from './checkpoint.js';
export { CkptError, type Code, type Place } from './errors.js';
export { open } from './open.js';
export { Complex, Dict, NaNBits, Scalar, Tagged, Tuple, type Key, type Value } from './values.js';
