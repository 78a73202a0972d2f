package faultnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxFrameBytes is above what brokers take (socket.request.max.bytes, 100 MiB).
const maxFrameBytes = 128 << 20

// Request is one request on its way to a broker.
type Request struct {
	// Client is as named at its entrance, or its client id.
	Client string
	// Broker is the address that it is on its way to.
	Broker string
	// Number counts the client's requests of this key, from 1.
	Number int
	// Copy says that this is a late or second delivery.
	Copy bool

	Key, Version int16
	Correlation  int32
	// Frame is the request as it came, its size included.
	Frame []byte
}

// Name is what Kafka calls requests of this key.
func (r Request) Name() string { return kmsg.NameForKey(r.Key) }

// Parse decodes the request.
func (r Request) Parse() (kmsg.Request, error) {
	request := kmsg.RequestForKey(r.Key)
	if request == nil {
		return nil, fmt.Errorf("no request has key %d", r.Key)
	}
	request.SetVersion(r.Version)
	reader := kbin.Reader{Src: r.Frame[frameHeaderBytes:]}
	reader.NullableString() // client id
	if request.IsFlexible() {
		kmsg.SkipTags(&reader)
	}
	if !reader.Ok() {
		return nil, fmt.Errorf("parse header of %s: %w", r.Name(), reader.Complete())
	}
	if err := request.ReadFrom(reader.Src); err != nil {
		return nil, fmt.Errorf("parse %s: %w", r.Name(), err)
	}
	return request, nil
}

// Answer makes the frame that answers the request.
func (r Request) Answer(response kmsg.Response) []byte {
	frame := binary.BigEndian.AppendUint32(make([]byte, 4), uint32(r.Correlation))
	if response.IsFlexible() && response.Key() != int16(kmsg.ApiVersions) {
		frame = append(frame, 0) // no tagged fields
	}
	frame = response.AppendTo(frame)
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	return frame
}

// ParseAnswer decodes the frame of an answer to the request.
func (r Request) ParseAnswer(frame []byte) (kmsg.Response, error) {
	response := kmsg.ResponseForKey(r.Key)
	if response == nil {
		return nil, fmt.Errorf("no answer has key %d", r.Key)
	}
	response.SetVersion(r.Version)
	reader := kbin.Reader{Src: frame[4:]}
	reader.Int32() // correlation id
	if response.IsFlexible() && r.Key != int16(kmsg.ApiVersions) {
		kmsg.SkipTags(&reader)
	}
	if err := response.ReadFrom(reader.Src); err != nil {
		return nil, fmt.Errorf("parse answer to %s: %w", r.Name(), err)
	}
	return response, nil
}

// frameHeaderBytes is what every request begins with: size, key, version,
// correlation id.
const frameHeaderBytes = 4 + 2 + 2 + 4

var errBadFrame = errors.New("this is no frame of Kafka's protocol")

// readFrame reads one frame, its size included.
func readFrame(from io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(from, size[:]); err != nil {
		return nil, err
	}
	bytes := binary.BigEndian.Uint32(size[:])
	if bytes < 4 || bytes > maxFrameBytes {
		return nil, fmt.Errorf("%w: %d bytes", errBadFrame, bytes)
	}
	frame := make([]byte, 4+bytes)
	copy(frame, size[:])
	if _, err := io.ReadFull(from, frame[4:]); err != nil {
		return nil, err
	}
	return frame, nil
}

// readRequest reads one request. Client is the client id of its header.
func readRequest(from io.Reader) (Request, error) {
	frame, err := readFrame(from)
	if err != nil {
		return Request{}, err
	}
	reader := kbin.Reader{Src: frame[4:]}
	r := Request{Frame: frame, Key: reader.Int16(), Version: reader.Int16(), Correlation: reader.Int32()}
	if id := reader.NullableString(); id != nil {
		r.Client = *id
	}
	if !reader.Ok() {
		return Request{}, errBadFrame
	}
	return r, nil
}
