// Answers on their way: kept in the browser until the server has them, sent in order, once each.
//
// An entry is written before the page moves on, and removed when the server says that it is stored.
// Its submission id makes sending it twice the same as sending it once.

import { Away } from "./api.js";

const RETRY_MS = 1500;

export class Outbox {
  /** changed(outbox) is called after every change; lost(entry, error) for an answer refused. */
  constructor(key, send, { changed, lost }) {
    this.key = key;
    this.send = send;
    this.changed = changed;
    this.lost = lost;
    this.away = false;
    this.closed = false;
    this.running = null;
    addEventListener("online", () => this.flush());
    addEventListener("storage", (event) => event.key === this.key && this.changed(this));
  }

  read() {
    try {
      return JSON.parse(localStorage.getItem(this.key)) ?? [];
    } catch {
      return [];
    }
  }

  write(entries) {
    if (entries.length) localStorage.setItem(this.key, JSON.stringify(entries));
    else localStorage.removeItem(this.key);
    this.changed(this);
  }

  get size() {
    return this.read().length;
  }

  holds(lease) {
    return this.read().some((entry) => entry.lease === lease);
  }

  add(entry) {
    this.write([...this.read(), { ...entry, tried: false }]);
    this.flush();
  }

  /** Take the newest entry back if it was never sent; null if it may have arrived. */
  takeBack() {
    const entries = this.read();
    const last = entries.at(-1);
    if (!last || last.tried) return null;
    this.write(entries.slice(0, -1));
    return last;
  }

  remove(id) {
    this.write(this.read().filter((entry) => entry.id !== id));
  }

  /** Send what is there; resolves when it is empty or the server is away. */
  flush() {
    // One tab sends at a time, where the browser can say so; ids keep it right where it cannot.
    this.running ??= (navigator.locks ? navigator.locks.request(this.key, () => this.drain()) : this.drain())
      .finally(() => {
        this.running = null;
        if (this.size && !this.closed) setTimeout(() => this.flush(), this.away ? RETRY_MS : 0);
      });
    return this.running;
  }

  async drain() {
    for (let entry = this.read()[0]; entry && !this.closed; entry = this.read()[0]) {
      const now = entry.id;
      this.write(this.read().map((one) => (one.id === now ? { ...one, tried: true } : one)));
      try {
        const receipt = await this.send(entry);
        this.away = false;
        this.remove(now);
        this.sent?.(entry, receipt);
      } catch (error) {
        if (error instanceof Away) {
          this.away = true;
          this.changed(this);
          return;
        }
        if (error.status === 401 || error.status === 403) {
          this.closed = true;
          this.changed(this);
          this.lost(null, error);
          return;
        }
        this.remove(now);
        this.lost(entry, error);
      }
    }
  }
}
