package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/omni-run/omni/pipeline/message"
)

const (
	controlQueue = 256 // control frames that wait to be written
	dataQueue    = 32  // data frames that wait to be written
	readBuffer   = 128 << 10
)

// Socket is a Conn over a unix stream socket.
type Socket struct {
	conn    *net.UnixConn
	reader  *bufio.Reader
	fds     *fdReader
	control chan outgoing
	data    chan outgoing
	closed  chan struct{} // closed by Close
	stopped chan struct{} // closed when the writer has ended

	once sync.Once
	mu   sync.Mutex // guards what follows
	fail error      // why the writer has ended
}

// outgoing is a frame to write, or a mark: written is closed when everything before it is written.
type outgoing struct {
	frame   frame
	written chan struct{}
}

// Pair makes a connected pair of sockets: this side's, and the file to hand to a child as its descriptor 3. The caller
// closes the file once the child has been started.
func Pair() (*Socket, *os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	ours := os.NewFile(uintptr(pair[0]), "omni-parent")
	theirs := os.NewFile(uintptr(pair[1]), "omni-worker")
	s, err := FromFile(ours)
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return s, theirs, nil
}

// FromFile makes a Socket of one end of a socketpair and closes file.
func FromFile(file *os.File) (*Socket, error) {
	conn, err := net.FileConn(file)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, fmt.Errorf("descriptor of %s: %w", file.Name(), err)
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("descriptor of %s is no unix socket", file.Name()), conn.Close())
	}
	s := &Socket{
		conn:    unixConn,
		fds:     &fdReader{conn: unixConn, oob: make([]byte, unix.CmsgSpace(4*maxFDs))},
		control: make(chan outgoing, controlQueue),
		data:    make(chan outgoing, dataQueue),
		closed:  make(chan struct{}),
		stopped: make(chan struct{}),
	}
	s.reader = bufio.NewReaderSize(s.fds, readBuffer)
	go s.write()
	return s, nil
}

// Send implements Conn.
func (s *Socket) Send(ctx context.Context, m message.Message) error {
	header, pieces, err := message.Encode(m)
	if err != nil {
		return err
	}
	if len(header) > MaxHeader {
		return fmt.Errorf("send %s: header of %d bytes, at most %d are allowed", m.Kind(), len(header), MaxHeader)
	}
	f := frame{header: header}
	for _, p := range pieces {
		f.size += int64(len(p))
	}
	if f.size > MaxBody {
		return fmt.Errorf("send %s: body of %d bytes, at most %d are allowed", m.Kind(), f.size, int64(MaxBody))
	}
	if f.size <= Inline {
		f.inline = pieces
	} else if f.file, err = writeBody(pieces, f.size); err != nil {
		return fmt.Errorf("send %s: %w", m.Kind(), err)
	}
	queue := s.data
	if message.IsControl(m) {
		queue = s.control
	}
	if err := s.enqueue(ctx, queue, outgoing{frame: f}); err != nil {
		f.close()
		return fmt.Errorf("send %s: %w", m.Kind(), err)
	}
	return nil
}

// Flush implements Conn.
func (s *Socket) Flush(ctx context.Context) error {
	mark := outgoing{written: make(chan struct{})}
	if err := s.enqueue(ctx, s.data, mark); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	select {
	case <-mark.written:
		return nil
	case <-s.stopped:
		return fmt.Errorf("flush: %w", s.failure())
	case <-ctx.Done():
		return fmt.Errorf("flush: %w", ctx.Err())
	}
}

// Close implements Conn.
func (s *Socket) Close() error {
	var err error
	s.once.Do(func() {
		close(s.closed)
		err = s.conn.Close()
		<-s.stopped
	})
	return err
}

// Recv implements Conn.
func (s *Socket) Recv() (message.Message, error) {
	header, body, err := readFrame(s.reader, s.fds)
	if err != nil {
		select {
		case <-s.closed:
			s.fds.discard()
			return nil, ErrClosed
		default:
		}
		// The kernel reports data that the other side never read as a reset: for a reader that is an end as well.
		if errors.Is(err, syscall.ECONNRESET) {
			return nil, io.EOF
		}
		return nil, err
	}
	return message.Decode(header, body)
}

func (s *Socket) enqueue(ctx context.Context, queue chan<- outgoing, o outgoing) error {
	select {
	case <-s.stopped:
		return s.failure()
	default:
	}
	select {
	case queue <- o:
		return nil
	case <-s.stopped:
		return s.failure()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// failure says why nothing more can be sent.
func (s *Socket) failure() error {
	select {
	case <-s.closed:
		return ErrClosed
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fail
}

// write is the goroutine that owns the writing side. It ends when the connection does.
func (s *Socket) write() {
	defer close(s.stopped)
	defer s.drop()
	for {
		o, ok := s.pick()
		if !ok {
			return
		}
		if err := s.put(o); err != nil {
			s.mu.Lock()
			s.fail = fmt.Errorf("%w: %w", ErrBroken, err)
			s.mu.Unlock()
			return
		}
	}
}

// pick returns what to write next: control before data. It returns false after Close.
func (s *Socket) pick() (outgoing, bool) {
	select {
	case o := <-s.control:
		return o, true
	default:
	}
	select {
	case o := <-s.control:
		return o, true
	case o := <-s.data:
		return o, true
	case <-s.closed:
		return outgoing{}, false
	}
}

// put writes a frame, or answers a mark, which stands for all frames queued before it in either queue.
func (s *Socket) put(o outgoing) error {
	if o.written == nil {
		return s.putFrame(&o.frame)
	}
	for {
		select {
		case c := <-s.control:
			if err := s.putFrame(&c.frame); err != nil {
				return err
			}
		default:
			close(o.written)
			return nil
		}
	}
}

func (s *Socket) putFrame(f *frame) error {
	defer f.close()
	if f.file == nil {
		buffers := append(net.Buffers{f.prefix(), f.header}, f.inline...)
		_, err := buffers.WriteTo(s.conn)
		return err
	}
	head := append(f.prefix(), f.header...)
	n, _, err := s.conn.WriteMsgUnix(head, unix.UnixRights(int(f.file.Fd())), nil)
	if err == nil && n < len(head) {
		_, err = s.conn.Write(head[n:]) // the descriptor left with the first byte
	}
	return err
}

// drop frees what will never be written.
func (s *Socket) drop() {
	for {
		select {
		case o := <-s.control:
			o.frame.close()
		case o := <-s.data:
			o.frame.close()
		default:
			return
		}
	}
}
