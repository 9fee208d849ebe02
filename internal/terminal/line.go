package terminal

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

const barWidth = 24 // columns between the brackets

// bar is the line of a running step, cut to a width in columns.
func (s *step) bar(width int, took time.Duration) string {
	line := s.name
	if s.total > 0 {
		full := int(min(s.bytes, s.total) * barWidth / s.total)
		line += " [" + strings.Repeat("=", full) + strings.Repeat(" ", barWidth-full) + "]"
	}
	line += s.amount("  ") + s.rate(took) + "  " + seconds(took)
	if utf8.RuneCountInString(line) < width {
		return line
	}
	return string([]rune(line)[:max(0, width-1)]) // a full line would wrap, and the count of drawn lines be wrong
}

// amount is the bytes counted so far after a separator, or nothing for a step that counts none.
func (s *step) amount(sep string) string {
	switch {
	case s.bytes == 0:
		return ""
	case s.total > 0 && s.bytes != s.total:
		n, unit := scale(max(s.bytes, s.total))
		return fmt.Sprintf("%s%s of %s %s", sep, round(float64(s.bytes)/n), round(float64(s.total)/n), unit)
	}
	n, unit := scale(s.bytes)
	return fmt.Sprintf("%s%s %s", sep, round(float64(s.bytes)/n), unit)
}

// rate is the average bytes a second in brackets, or nothing while it would be a guess.
func (s *step) rate(took time.Duration) string {
	if s.bytes == 0 || took < worthALine {
		return ""
	}
	perSecond := int64(float64(s.bytes) / took.Seconds())
	n, unit := scale(perSecond)
	return fmt.Sprintf(" (%s %s/s)", round(float64(perSecond)/n), unit)
}

// comma separates the amount of bytes, if there is one, from the time.
func comma(bytes int64) string {
	if bytes == 0 {
		return ""
	}
	return ", "
}

// scale is the decimal unit that suits n bytes, and its size.
func scale(n int64) (float64, string) {
	switch {
	case n >= 1e9:
		return 1e9, "GB"
	case n >= 1e6:
		return 1e6, "MB"
	case n >= 1e3:
		return 1e3, "kB"
	}
	return 1, "B"
}

// round writes small numbers with one digit after the point, where that is not zero, and others without.
func round(f float64) string {
	if f >= 9.95 {
		return fmt.Sprintf("%.0f", f)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0")
}

func seconds(d time.Duration) string {
	if d >= time.Minute {
		d = d.Round(time.Second)
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return round(d.Seconds()) + " s"
}
