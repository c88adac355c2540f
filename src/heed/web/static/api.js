// Requests to the API: JSON in and out, the page's token on each.

const TIMEOUT_MS = 15000;

/** An answer of the server that is not the wished one. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** The server does not answer now: away, restarting, or over its limits. */
export class Away extends Error {}

export function makeApi(csrf) {
  return async function request(method, path, body, headers = {}) {
    let answer;
    try {
      answer = await fetch(`/api/v1${path}`, {
        method,
        headers: { "X-CSRF-Token": csrf, ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers },
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
    } catch (error) {
      throw new Away(error.message);
    }
    if (answer.status >= 500 || answer.status === 429) throw new Away(`status ${answer.status}`);
    const value = answer.status === 204 ? null : await answer.json().catch(() => null);
    if (!answer.ok) throw new Refused(answer.status, value?.detail ?? `status ${answer.status}`);
    return value;
  };
}
