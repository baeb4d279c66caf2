//! What CPU time costs: money and CO2 from four stated assumptions. Pure.

/** Rough figures of public clouds; shown to the reader wherever a cost stands. */
export const ASSUMED = {
  /** US dollars per core-hour, on-demand x86. */
  dollarsPerCoreHour: 0.0425,
  /** Watts of one busy core. */
  wattsPerCore: 7,
  /** Energy of the building per energy of the machine. */
  buildingFactor: 1.7,
  /** Kilograms of CO2 per kilowatt-hour, world-wide mix. */
  kilogramsPerKilowattHour: 0.379,
};

const HOURS_PER_YEAR = 8760;

/** The assumptions in one sentence. */
export const ASSUMPTION = `Assumes $${ASSUMED.dollarsPerCoreHour} per core-hour, ${ASSUMED.wattsPerCore} W per core × ${ASSUMED.buildingFactor} for the building, ${ASSUMED.kilogramsPerKilowattHour} kg CO2 per kWh; a year at the rate of this range.`;

/**
 * A year at the rate of a range.
 * @param {number} cpuNs CPU time used in the range
 * @param {number} rangeMs length of the range
 * @returns {{dollars: number, kilograms: number}}
 */
export function perYear(cpuNs, rangeMs) {
  if (!(rangeMs > 0)) return { dollars: 0, kilograms: 0 };
  const coreHours = (cpuNs / 1e6 / rangeMs) * HOURS_PER_YEAR;
  return {
    dollars: coreHours * ASSUMED.dollarsPerCoreHour,
    kilograms: ((coreHours * ASSUMED.wattsPerCore * ASSUMED.buildingFactor) / 1000) * ASSUMED.kilogramsPerKilowattHour,
  };
}
