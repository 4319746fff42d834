// Moving contours: figures of joints, drawn on a canvas.

// COCO's joints: which are joined by a limb.
const LIMBS = [[5, 7], [7, 9], [6, 8], [8, 10], [5, 6], [5, 11], [6, 12], [11, 12], [11, 13], [13, 15], [12, 14], [14, 16]];
const HEAD = [0, 1, 2, 3, 4];
// Joints that are less surely seen are not drawn.
const SEEN = 100;
const STILL_S = 2;

export class Figure {
  constructor(canvas) {
    this.canvas = canvas;
    canvas.width = 640;
    canvas.height = 480;
    this.show([]);
  }

  // people: of each [x, y, seen] of 17 joints in one list, times 255.
  show(people) {
    const pen = this.canvas.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    const { width, height } = this.canvas;
    pen.clearRect(0, 0, width, height);
    pen.lineCap = "round";
    people.forEach((joints, number) => {
      const at = (j) => [(joints[3 * j] / 255) * width, (joints[3 * j + 1] / 255) * height];
      const seen = (j) => joints[3 * j + 2] >= SEEN;
      const [left, right] = [at(5), at(6)];
      const shoulders = Math.hypot(left[0] - right[0], left[1] - right[1]);
      pen.strokeStyle = pen.fillStyle = style.getPropertyValue(`--person-${number + 1}`);
      pen.lineWidth = Math.max(5, shoulders / 4);
      for (const [a, b] of LIMBS) {
        if (!seen(a) || !seen(b)) continue;
        pen.beginPath();
        pen.moveTo(...at(a));
        pen.lineTo(...at(b));
        pen.stroke();
      }
      const head = HEAD.filter(seen).map(at);
      if (!head.length) return;
      const middle = [0, 1].map((i) => head.reduce((sum, p) => sum + p[i], 0) / head.length);
      pen.beginPath();
      pen.arc(...middle, Math.max(7, shoulders / 3), 0, 2 * Math.PI);
      pen.fill();
    });
    this.canvas.dataset.people = people.length;
  }
}

// Plays what comes at its pace, and holds the last for a while.
export class LivePlayer {
  constructor(canvas) {
    this.figure = new Figure(canvas);
    this.waiting = [];
    this.calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.timer = null;
    this.idle = 0;
  }

  push(ticks, rate) {
    this.idle = 0;
    this.waiting.push(...(this.calm ? ticks.slice(-1) : ticks));
    // What is late is passed over.
    if (this.waiting.length > 3 * rate) this.waiting.splice(0, this.waiting.length - rate);
    if (this.timer === null) this.timer = setInterval(() => this.step(rate), 1000 / rate);
  }

  step(rate) {
    const next = this.waiting.shift();
    if (next) {
      this.figure.show(next.people);
    } else if (++this.idle > STILL_S * rate) {
      this.figure.show([]);
      this.stop();
    }
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
  }
}
