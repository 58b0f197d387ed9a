export type * from './api.js';
export { CkptError, type Code, type Place } from './errors.js';
export { Complex, Dict, NaNBits, Scalar, Tagged, Tuple, type Key, type Value } from './values.js';
