package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"flashgate/loadtest"
)

// progress shows on standard error how far the crowd is: a bar on a terminal, else a line a second.
type progress struct {
	w      io.Writer
	bars   *mpb.Progress
	bar    *mpb.Bar
	mu     sync.Mutex
	last   loadtest.Progress
	lineAt time.Duration
}

const lineEvery = time.Second

func newProgress(c console, shoppers int) *progress {
	p := &progress{w: c.err}
	if !isTerminal(c.err) {
		return p
	}
	p.bars = mpb.New(mpb.WithOutput(c.err), mpb.WithWidth(40))
	p.bar = p.bars.AddBar(int64(shoppers),
		mpb.PrependDecorators(decor.Name("shoppers "), decor.CountersNoUnit("%d / %d ")),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			p.mu.Lock()
			defer p.mu.Unlock()
			return " " + progressText(p.last)
		})))
	return p
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

func (p *progress) show(now loadtest.Progress) {
	p.mu.Lock()
	p.last = now
	p.mu.Unlock()
	switch {
	case p.bar != nil:
		p.bar.SetCurrent(int64(now.Left))
	case now.Elapsed-p.lineAt >= lineEvery:
		p.lineAt = now.Elapsed
		fmt.Fprintf(p.w, "%4.1f s: %d of %d shoppers, %s\n", now.Elapsed.Seconds(), now.Left, now.Shoppers,
			progressText(now))
	}
}

func progressText(p loadtest.Progress) string {
	return fmt.Sprintf("%d accepted, %d refused, %d unavailable; %d left, %d sold",
		p.Accepted, p.Refused, p.Unavailable, p.Stock.Available, p.Stock.Sold)
}

// close leaves the bar as it is.
func (p *progress) close() {
	if p.bar != nil {
		p.bar.Abort(false)
		p.bars.Wait()
	}
}
