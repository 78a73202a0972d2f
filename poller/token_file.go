package poller

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"time"

	"cdrbus/internal/config/secretfile"
)

const (
	// replacePatience bridges the moment in which somebody replaces a file
	// without renaming: it is missing or empty then.
	replacePatience = 2 * time.Second
	replacePoll     = 100 * time.Millisecond

	// rejectPatience is how long a rejected token's file is watched for the next
	// one: whoever renews it may be a little late.
	rejectPatience = 30 * time.Second
	rejectPoll     = time.Second

	// fileReprobe is how often a stopped source looks at the file again.
	fileReprobe = time.Minute
)

// FileToken is a bare access token that somebody else renews, in a file. The
// file is read for every request, so a new token is taken up at once. It is
// safe for concurrent use.
type FileToken struct {
	where string // for messages
	read  func() (string, error)

	mu         sync.Mutex
	rejected   string // the feed answered 401 to it
	rejectedAt time.Time
	confirmed  bool // and again, when it was repeated
	repeated   bool // it was handed out again after its first rejection
}

// NewFileToken returns the token in the file at path. A file that everybody on
// the machine may open is refused.
func NewFileToken(path string) *FileToken {
	return NewBareToken(path, func() (string, error) { return secretfile.Read(path) })
}

// NewBareToken returns the token that read returns; where tells people where
// that is. The errors of read must not quote the token.
func NewBareToken(where string, read func() (string, error)) *FileToken {
	return &FileToken{where: where, read: read}
}

// Token returns what the file holds, or a *[Stopped] while that is unusable or
// the very token that the feed has rejected. A rejected token is tried again
// now and then, for the rejection may have been the mistake.
func (f *FileToken) Token(ctx context.Context) (Token, error) {
	token, err := f.readToken(ctx)
	if err != nil {
		return Token{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if token.AccessToken != f.rejected || time.Since(f.rejectedAt) >= reprobeInterval {
		return token, nil
	}
	switch {
	case f.confirmed:
		return Token{}, f.stopped()
	case f.repeated: // and nobody has complained since: the 401 was a mistake
		f.rejected = ""
	}
	f.repeated = true
	return token, nil
}

// Rejected lets a token be tried once more, for one 401 may be the feed's own
// mistake. At the second it waits for the file to hold another token, at most
// 30 s; then it returns a *[Stopped].
func (f *FileToken) Rejected(ctx context.Context, token Token) error {
	if f.firstRejection(token) {
		return nil
	}
	for deadline := time.Now().Add(rejectPatience); ; {
		current, err := f.readToken(ctx)
		if err != nil {
			return err
		}
		if current.AccessToken != token.AccessToken {
			return nil
		}
		if !time.Now().Before(deadline) {
			return f.stopped()
		}
		if err := waitFor(ctx, rejectPoll, nil); err != nil {
			return err
		}
	}
}

// firstRejection notes a rejection, and reports whether it is the first of this token.
func (f *FileToken) firstRejection(token Token) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.confirmed = f.rejected == token.AccessToken && time.Since(f.rejectedAt) < reprobeInterval
	f.rejected, f.rejectedAt, f.repeated = token.AccessToken, time.Now(), false
	return !f.confirmed
}

func (f *FileToken) stopped() *Stopped {
	return &Stopped{
		Code:    401,
		Message: "the feed rejects the access token in " + f.where,
		Remedy:  "it is expired, revoked or of another organisation: put a new one in its place (a file is read again by itself, a variable needs a restart)",
		Reprobe: fileReprobe,
	}
}

// readToken reads the file, once more while it is being replaced.
func (f *FileToken) readToken(ctx context.Context) (Token, error) {
	for deadline := time.Now().Add(replacePatience); ; {
		text, err := f.read()
		switch {
		case err == nil && strings.ContainsAny(text, " \t"):
			return Token{}, f.unusable(errors.New("read access token from " + f.where + ": it holds more than the bare token"))
		case err == nil:
			return Token{AccessToken: text}, nil
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, secretfile.ErrEmpty), !time.Now().Before(deadline):
			return Token{}, f.unusable(err)
		}
		if err := waitFor(ctx, replacePoll, nil); err != nil {
			return Token{}, err
		}
	}
}

func (f *FileToken) unusable(err error) *Stopped {
	return &Stopped{Message: err.Error(), Remedy: "write the access token there, and nothing else", Reprobe: fileReprobe}
}
