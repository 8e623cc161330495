package prompt

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestStrftime(t *testing.T) {
	at := time.Date(2024, 3, 5, 14, 7, 9, 0, time.UTC)
	tests := map[string]string{
		"%d %b %Y": "05 Mar 2024", "%A, %B %-d": "Tuesday, March 5", "%H:%M:%S|%I %p": "14:07:09|02 PM", "%F %T": "2024-03-05 14:07:09",
		"100%%": "100%", "%j %y %e": "065 24  5", "%": "%", "%Z%z": "UTC+0000", "%-M": "7",
	}
	for format, want := range tests {
		got, err := strftime(at, format)
		require.NoError(t, err)
		assert.Equal(t, want, got, format)
	}
	midnight := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	got, err := strftime(midnight, "%-H")
	require.NoError(t, err)
	assert.Equal(t, "0", got)
	_, err = strftime(at, "%Q")
	require.EqualError(t, err, `strftime_now: unknown directive %Q in "%Q"`)
}
