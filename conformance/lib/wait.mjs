// Waiting on conditions. Everything that waits has a deadline and says what it waited for.

export class DeadlineError extends Error {}

/** Pause between two looks at a condition; never used to let a race settle. */
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Polls `condition` until it returns something truthy, and returns that. An exception thrown by the condition counts as
 * "not yet"; the last one is named when the deadline passes.
 */
export async function until(what, condition, { deadlineMs = 30_000, everyMs = 20 } = {}) {
  const end = performance.now() + deadlineMs;
  let lastError = null;
  for (;;) {
    try {
      const value = await condition();
      if (value) return value;
      lastError = null;
    } catch (error) {
      if (error instanceof DeadlineError) throw error;
      lastError = error;
    }
    if (performance.now() > end) {
      const detail = lastError === null ? "" : ` (last error: ${lastError.message})`;
      throw new DeadlineError(`waited ${deadlineMs} ms for ${what}${detail}`);
    }
    await pause(everyMs);
  }
}

/** `promise`, or a DeadlineError that names `what` after `deadlineMs`. */
export async function within(what, promise, deadlineMs) {
  let timer;
  const expired = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new DeadlineError(`waited ${deadlineMs} ms for ${what}`)), deadlineMs);
  });
  try {
    return await Promise.race([promise, expired]);
  } finally {
    clearTimeout(timer);
  }
}
