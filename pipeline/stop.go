package pipeline

import (
	"fmt"
	"strings"
)

// stopper ends a text before the first of its strings. It holds back what may be the beginning of one, so that what has been
// shown never has to be taken back.
type stopper struct {
	stops []string
	held  string
}

// push takes the next piece of the text and returns what can be shown; last says that no other will come. stopped reports
// that one of the strings has come: the text ends there.
func (s *stopper) push(piece string, last bool) (text string, stopped bool) {
	if len(s.stops) == 0 {
		return piece, false
	}
	text, s.held = s.held+piece, ""
	first := -1
	for _, stop := range s.stops {
		if i := strings.Index(text, stop); i >= 0 && (first < 0 || i < first) {
			first = i
		}
	}
	if first >= 0 {
		return text[:first], true
	}
	if last {
		return text, false
	}
	keep := 0
	for _, stop := range s.stops {
		for n := min(len(stop)-1, len(text)); n > keep; n-- {
			if strings.HasSuffix(text, stop[:n]) {
				keep = n
				break
			}
		}
	}
	text, s.held = text[:len(text)-keep], text[len(text)-keep:]
	return text, false
}

// checkStops refuses strings that would end every text.
func checkStops(stops []string) error {
	for i, stop := range stops {
		if stop == "" {
			return fmt.Errorf("stop[%d]: the string is empty", i)
		}
	}
	return nil
}
